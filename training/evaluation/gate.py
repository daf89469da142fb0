"""The rule that a candidate must pass, declared before it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from training.evaluation.statistics import PairedTest
from training.models import GateVerdict

GUARDRAILS: dict[str, tuple[str, float, str]] = {
    # name: (metric, largest tolerable loss, what it is)
    "citation_recall": ("citation_recall", 0.02, "Answers supported by what they cite"),
    "over_refusal": ("over_refusal", 0.03, "Declining where the passages hold the answer"),
    "missing_oracle": ("rightly_declined", 0.02, "Declining where the passages do not hold it"),
}


class GateRuleError(ValueError):
    """A rule that cannot be meant."""


@dataclass(frozen=True)
class GateRule:
    """``primary`` must be better with its whole interval above ``minimum_gain`` and McNemar's p below ``alpha``; each
    guardrail may lose at most its margin (point estimate; its interval is shown beside it)."""

    primary: str = "grounded_correct"
    minimum_gain: float = 0.0
    alpha: float = 0.05
    margins: Mapping[str, float] = field(default_factory=lambda: {name: g[1] for name, g in GUARDRAILS.items()})

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "margins": dict(self.margins)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GateRule:
        unknown = set(values) - {f.name for f in fields(cls)} or set(values.get("margins", {})) - set(GUARDRAILS)
        if unknown:
            raise GateRuleError(f"A gate has no {', '.join(sorted(unknown))}.")
        return cls(**values)


@dataclass(frozen=True)
class Criterion:
    """One line of the gate's table. ``value`` is the change of candidate against today, positive is better."""

    name: str
    label: str
    limit: float
    value: float
    low: float
    high: float
    n: int
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    rule: GateRule, primary: PairedTest, guardrails: Mapping[str, PairedTest]
) -> tuple[GateVerdict, list[Criterion]]:
    """The verdict and its table. ``guardrails`` hold gains: callers flip the sign of measures where less is better."""
    gain = primary.difference
    proved = gain.low > rule.minimum_gain and primary.p_mcnemar < rule.alpha
    table = [_line("primary", "Grounded and correct", rule.minimum_gain, primary, proved)]
    for name, test in guardrails.items():
        margin = rule.margins.get(name, GUARDRAILS[name][1])
        table.append(_line(name, GUARDRAILS[name][2], -margin, test, test.difference.value >= -margin - 1e-9))
    if gain.high < 0:
        return GateVerdict.WORSE, table
    return (GateVerdict.PASSED if all(c.passed for c in table) else GateVerdict.NOT_PROVEN), table


def _line(name: str, label: str, limit: float, test: PairedTest, passed: bool) -> Criterion:
    d = test.difference
    return Criterion(name, label, limit, d.value, d.low, d.high, d.n, passed)

"""The rule that a candidate must pass, declared before it is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from training.evaluation.statistics import CONFIDENCE, LEAST_CLUSTERS, Estimate, PairedTest, attempt_share
from training.models import Condition, GateVerdict
from training.signs import signed


@dataclass(frozen=True)
class Guardrail:
    """What must not get worse. ``margin``: largest loss that is usual, and what the form begins with.

    ``kind``: ``loss`` compares candidate and today on the same items; ``level`` looks at the candidate alone, and its
    margin is the highest share allowed; ``ratio`` is the slow end (95th percentile) of both, and its margin the share
    by which it may grow.
    """

    metric: str
    condition: str
    label: str
    margin: float
    missing: str
    """What to do where nothing can be compared."""
    kind: str = "loss"
    standard: bool = True
    """Part of the gate of an assistant that has declared none: it costs no answers beyond the standard ones."""
    few: str = ""
    """What to do where too few can be; empty: as where nothing can."""


_ORACLE = "Add questions whose answer retrieval offers."
_CONDITION = "Evaluate with this condition on a benchmark that has questions to answer."
GUARDRAILS: dict[str, Guardrail] = {
    "citation_recall": Guardrail(
        "citation_recall", Condition.CLEAN, "Answers supported by what they cite", 0.02,
        "Both arms answered no question together.", few="Add questions to answer.",
    ),
    "over_refusal": Guardrail(
        "over_refusal", Condition.CLEAN, "Declining where the passages hold the answer", 0.03, _ORACLE
    ),
    "missing_oracle": Guardrail(
        "rightly_declined", Condition.MISSING_ORACLE, "Declining where the passages do not hold it", 0.02,
        "Add questions to answer: their passages are taken away here.",
    ),
    "recited": Guardrail(
        "recites", Condition.CLEAN, "Reciting training answers that the passages do not hold", 0.01,
        "The adapter's dataset is not known here; declare a gate without this criterion for imported adapters.",
        few="Add questions.",
    ),
    "private": Guardrail(
        "private", Condition.CLEAN, "Personal data that the prompt did not hold", 0.0,
        "No answer could be read.", kind="level", few="Add questions.",
    ),
    "groundedness": Guardrail(
        "groundedness", Condition.CLEAN, "Words of the answer that stand in the passages (a hint)", 0.01,
        "Both arms answered no question together.", standard=False, few="Add questions to answer.",
    ),
    "noisy_hard": Guardrail(
        "grounded_correct", Condition.NOISY_HARD, "Grounded and correct among near misses", 0.02, _CONDITION,
        standard=False,
    ),
    "noisy_random": Guardrail(
        "grounded_correct", Condition.NOISY_RANDOM, "Grounded and correct among random passages", 0.02, _CONDITION,
        standard=False,
    ),
    "counterfactual": Guardrail(
        "grounded_correct", Condition.COUNTERFACTUAL, "Following a passage that says otherwise", 0.02,
        "No gold sentence holds a number or a name that can be changed.", standard=False,
    ),
    "out_of_domain": Guardrail(
        "grounded_correct", Condition.OUT_OF_DOMAIN, "Reading outside the domain", 0.02,
        "Evaluate with the questions outside the domain.", standard=False,
    ),
    "latency": Guardrail(
        "seconds", Condition.CLEAN, "Seconds of a slow answer (95th percentile)", 0.10,
        "Evaluate with questions to be timed.", kind="ratio", standard=False,
    ),
    "rival": Guardrail(
        "grounded_correct", Condition.CLEAN, "Grounded and correct, against the other adapter", 0.0,
        "Name the other adapter, such as the live one, when the evaluation is started.", standard=False,
    ),
    "judge": Guardrail(
        "judge", Condition.CLEAN, "Preferred by the judge, whose agreement with people suffices", 0.0,
        "A judge counts when its agreement with people on this evaluation reaches what was declared.", standard=False,
    ),
}  # fmt: skip
MAX_TIMED = 200
"""Questions that an evaluation asks one by one for their seconds."""
LEAST_PAIRS = 30
"""Below, an agreement is not even told: κ of so few is luck, and one would ask until it is high."""
PRIMARIES = {
    "grounded_correct": "Grounded and correct",
    "right": "Right behaviour and content, support aside",
}


class GateRuleError(ValueError):
    """A rule that cannot be meant."""


def standard_margins() -> dict[str, float]:
    return {name: rail.margin for name, rail in GUARDRAILS.items() if rail.standard}


@dataclass(frozen=True)
class GateRule:
    """``primary`` must be better with its whole interval above ``minimum_gain`` and McNemar's p below ``alpha``. Each
    guardrail of ``margins`` may lose at most its margin, judged by its point estimate, or with ``strict`` by the whole
    interval; one that cannot be measured, or on fewer than ``least_questions`` questions, is not shown, and what is not
    shown does not pass."""

    primary: str = "grounded_correct"
    minimum_gain: float = 0.0
    alpha: float = 0.05
    margins: Mapping[str, float] = field(default_factory=standard_margins)
    strict: bool = False
    judge_agreement: float = 0.6
    """Cohen's κ between judge and people from which on the judge's criterion may count."""
    least_questions: int = 20
    """Of a guardrail: on three questions, luck decides. That many is judgement, and the least for which a 95th
    percentile is not the slowest answer."""
    benchmark: str = ""
    """Content hash of the one benchmark on which the gate can be passed; empty: on any, and each counts."""
    judge_pairs: int = LEAST_PAIRS
    """Pairs judged by people and judge from which on their agreement counts."""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "margins": dict(self.margins)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GateRule:
        """Raises GateRuleError: an unknown name, or a number that is none or out of its limits."""
        unknown = set(values) - {f.name for f in fields(cls)} or set(values.get("margins", {})) - set(GUARDRAILS)
        if unknown:
            raise GateRuleError(f"A gate has no {', '.join(sorted(unknown))}.")
        rule = cls(**values)
        if rule.primary not in PRIMARIES:
            raise GateRuleError(f"The primary measure is one of {', '.join(PRIMARIES)}.")
        limits = {"minimum_gain": (rule.minimum_gain, 0, 1), "alpha": (rule.alpha, 1e-6, 0.2)}
        limits |= {"judge_agreement": (rule.judge_agreement, 0.4, 1)}
        limits |= {"least_questions": (rule.least_questions, 1, 1000)}
        limits |= {"judge_pairs": (rule.judge_pairs, LEAST_PAIRS, 500)}
        limits |= {name: (margin, 0, 1) for name, margin in rule.margins.items()}
        for name, (value, least, most) in limits.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not least <= value <= most:
                raise GateRuleError(f"{name} is a number from {least:g} to {most:g}.")
        if not isinstance(rule.benchmark, str) or len(rule.benchmark) > 64:
            raise GateRuleError("benchmark is the content hash of one, or empty.")
        return rule

    def may_pass(self, content_hash: str) -> bool:
        """Whether it can be passed on the benchmark with this content."""
        return self.benchmark in ("", content_hash)

    def needs(self) -> frozenset[str]:
        """Conditions that must be asked under for the guardrails to be shown."""
        return frozenset(str(GUARDRAILS[name].condition) for name in self.margins) | {Condition.CLEAN.value}


@dataclass(frozen=True)
class Attempt:
    """Which attempt this is, of those of the same adapter and data (`training.evaluation.attempts`). ``low``: where the
    interval of its gain begins at this attempt's confidence; None: at the usual 95 %."""

    number: int = 1
    low: float | None = None

    @property
    def share(self) -> float:
        return attempt_share(self.number)

    @property
    def confidence(self) -> float:
        return 1 - (1 - CONFIDENCE) * self.share


@dataclass(frozen=True)
class Criterion:
    """One line of the gate's table. ``value`` is the change of candidate against today, positive is better; of a level
    its negative. None: nothing could be measured, which does not pass. ``reason``: why it does not, in one sentence."""

    name: str
    label: str
    limit: float
    value: float | None
    low: float | None
    high: float | None
    n: int
    passed: bool
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    rule: GateRule,
    primary: PairedTest,
    guardrails: Mapping[str, Estimate | None],
    *,
    attempt: Attempt | None = None,
    elsewhere: str = "",
) -> tuple[GateVerdict, list[Criterion]]:
    """The verdict and its table. ``guardrails`` hold gains: callers flip the sign of measures where less is better.
    ``elsewhere``: why this benchmark is not the gate's, in a sentence; empty where it is."""
    gain = primary.difference
    why = elsewhere or _unproven(rule, primary, attempt or Attempt())
    table = [
        Criterion(
            "primary", PRIMARIES.get(rule.primary, rule.primary), rule.minimum_gain, gain.value, gain.low, gain.high,
            gain.n, not why, why,
        )
    ]  # fmt: skip
    table += [_line(rule, name, guardrails.get(name)) for name in GUARDRAILS if name in rule.margins]
    if gain.high < 0:
        return GateVerdict.WORSE, table
    return (GateVerdict.PASSED if all(c.passed for c in table) else GateVerdict.NOT_PROVEN), table


def _unproven(rule: GateRule, primary: PairedTest, attempt: Attempt) -> str:
    """What the gain lacks, in one sentence; empty where it is proved."""
    if (clusters := primary.difference.clusters) < LEAST_CLUSTERS:
        documents = "one document" if clusters == 1 else f"{clusters} documents"
        return f"its questions are about {documents}, and an interval over fewer than {LEAST_CLUSTERS} says nothing"
    low = primary.difference.low if attempt.low is None else attempt.low
    alpha = rule.alpha * attempt.share
    counted = ""
    if attempt.number > 1:
        counted = (
            f" This is attempt {attempt.number} with this adapter or its data, and each further one is held to a "
            "stricter level: new labels make a new dataset, which begins at one."
        )
    if low <= rule.minimum_gain:
        at = f" at {attempt.confidence * 100:.2f} %" if attempt.number > 1 else ""
        return (
            f"the interval of its gain{at} begins at {_points(low)}, and must lie above "
            f"{_size(rule.minimum_gain)}{'.' if counted else ''}{counted}"
        )
    if primary.p_mcnemar >= alpha:
        return f"McNemar's p is {primary.p_mcnemar:.3g}, and must be below {alpha:.3g}{'.' if counted else ''}{counted}"
    return ""


def _line(rule: GateRule, name: str, found: Estimate | None) -> Criterion:
    rail, margin = GUARDRAILS[name], rule.margins[name]
    if found is None:
        return Criterion(name, rail.label, -margin, None, None, None, 0, False, f"not shown. {rail.missing}")
    # More than MAX_TIMED are never timed: a rule that asked for more could never be passed.
    least = min(rule.least_questions, MAX_TIMED) if rail.kind == "ratio" else rule.least_questions
    if found.n < least:
        why = (
            f"not shown. It rests on {found.n} {'question' if found.n == 1 else 'questions'}, and the gate asks for at "
            f"least {least}. {rail.few or rail.missing}"
        )
        return Criterion(name, rail.label, -margin, found.value, found.low, found.high, found.n, False, why)
    held = found.low if rule.strict else found.value
    passed = held >= -margin - 1e-9
    what = "may be" if rail.kind == "level" else "may grow by" if rail.kind == "ratio" else "may lose"
    how = "the worst that its interval allows is" if rule.strict else "it is"
    why = "" if passed else f"{how} {_points(held)}, and {what} at most {_size(margin)}"
    return Criterion(name, rail.label, -margin, found.value, found.low, found.high, found.n, passed, why)


def _points(value: float) -> str:
    return signed(value * 100)


def _size(value: float) -> str:
    return f"{value * 100:.1f}"

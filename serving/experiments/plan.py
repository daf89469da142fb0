"""What an experiment declares before it starts: its shares, what is measured, what takes the candidate back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


class PlanError(ValueError):
    """A setting is not allowed; the message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """Something that may happen to a unit (a conversation or a user); less of it is better.

    ``column``: SQL on the rows of `Exposure`, null where nothing is known. ``tolerance``: how much more of it than in
    the control takes the candidate back, unless the plan says otherwise; None: shown, never a guardrail.
    """

    name: str
    label: str
    column: str
    tolerance: float | None
    explained: str


OUTCOMES: dict[str, Outcome] = {
    outcome.name: outcome
    for outcome in (
        Outcome(
            "trouble", "Trouble", "(coalesce(down, false) OR corrected OR escalated OR coalesce(reformulated, false))",
            0.03, "Thumb down, correction, handed to a person, or the same asked again in other words.",
        ),
        Outcome("down", "Thumb down", "down", 0.05, "Among those who gave a thumb or a rating."),
        Outcome("corrected", "Corrected", "corrected", None, "The user wrote what the answer should have been."),
        Outcome("escalated", "Handed to a person", "escalated", 0.02, "An escalation, or the outcome of the turn."),
        Outcome(
            "reformulated", "Asked again", "reformulated", None,
            "Within ten minutes the next question has most of the same words.",
        ),
        Outcome("declined", "Declined", "declined", 0.05, "The answer said that the documents do not say."),
        Outcome(
            "unsupported", "Not supported (hint)", "unsupported", None,
            "Some sentence does not stand in a passage, by its words: a hint, so it takes nothing back by itself.",
        ),
        Outcome("slow", "Slow", "slow", 0.05, "Took longer than 19 of 20 answers did before the start."),
        Outcome(
            "failed", "No answer", "failed", 0.02,
            "No answer was logged, or the base model had to give it in the arm's place.",
        ),
    )
}  # fmt: skip
PRIMARY = ("trouble", "down", "declined")
UNITS = ("conversation", "user")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``by_rule``: steps are taken as soon as their condition holds; else a person takes each.

    ``goal``: with *better* the candidate goes live when the primary outcome is shown to be less; with *not_worse* when
    it is shown to be no more than ``margin`` above. ``guardrails``: {outcome: tolerated difference}.
    """

    unit: str = "conversation"
    by_rule: bool = False
    shadow_share: float = 0.2
    shadow_pairs: int = 30
    canary_share: float = 0.05
    canary_units: int = 100
    ab_share: float = 0.5
    pair_share: float = 0.05
    days: int = 14
    primary: str = "trouble"
    goal: str = "better"
    margin: float = 0.02
    guardrails: dict[str, float] = field(
        default_factory=lambda: {o.name: o.tolerance for o in OUTCOMES.values() if o.tolerance is not None}
    )

    def __post_init__(self) -> None:
        """Raises PlanError."""
        _one_of("unit", self.unit, UNITS)
        _one_of("primary", self.primary, PRIMARY)
        _one_of("goal", self.goal, ("better", "not_worse"))
        _between("shadow_share", self.shadow_share, 0.0, 1.0)
        _between("pair_share", self.pair_share, 0.0, 1.0)
        _between("canary_share", self.canary_share, 0.005, 0.5)
        # Below a fifth, a verdict takes so long that the calendar ends it.
        _between("ab_share", self.ab_share, 0.2, 0.8)
        _between("margin", self.margin, 0.001, 0.5)
        _between("days", self.days, 1, 90)
        _between("shadow_pairs", self.shadow_pairs, 0, 1000)
        _between("canary_units", self.canary_units, 20, 100_000)
        if not self.guardrails:
            raise PlanError("guardrails: at least one; it is what takes a bad candidate back.")
        for name, tolerance in self.guardrails.items():
            if name not in OUTCOMES or OUTCOMES[name].tolerance is None:
                raise PlanError(f"guardrails: there is no guardrail {str(name)[:40]!r}.")
            _between(f"guardrails.{name}", tolerance, 0.0, 0.5)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def read_plan(stored: Mapping[str, Any]) -> Plan:
    """Raises:
    PlanError: an unknown setting, or a value that is not allowed.
    """
    known = {one.name for one in fields(Plan)}
    if strange := sorted(set(stored) - known):
        raise PlanError(f"There is no setting {str(strange[0])[:40]!r}.")
    return Plan(**stored)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise PlanError(f"{name}: one of {', '.join(allowed)}.")


def _between(name: str, value: object, low: float, high: float) -> None:
    # "not low <= value" also refuses what is no number at all
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise PlanError(f"{name}: from {low:g} to {high:g}.")

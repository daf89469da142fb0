"""What a synthesis is to write: kinds and their shares, who writes, how it should sound, and when to stop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

FORMS = ("single", "several", "follow_up", "comparison", "near_miss", "out_of_scope", "counterfactual")
WRITERS = {
    "rules": "By rule, from the words of the sentence",
    "base": "By rule; the base model writes where no rule fits",
    "teacher": "A large model behind an OpenAI-compatible address",
}
CHECKS = {
    "teacher": "Where a teacher writes",
    "always": "Always; without a teacher the base model answers",
    "never": "Never",
}
STYLES = {
    "logged": "As people ask here: length, case and marks of logged questions",
    "mixed": "Some in lower case, some as bare search words",
    "plain": "Whole sentences",
}
_MIX = {
    "single": 0.55, "several": 0.05, "follow_up": 0.1, "comparison": 0.05, "near_miss": 0.1, "out_of_scope": 0.05,
    "counterfactual": 0.1,
}  # fmt: skip


class PlanError(ValueError):
    """A plan that cannot be meant; the message says which field and what is allowed."""


@dataclass(frozen=True)
class Plan:
    """Shares of ``mix`` are of the questions to keep; they need not add up to 1."""

    writer: str = "rules"
    teacher_model: str = ""
    """Name at the teacher's address; empty: the setting."""
    mix: dict[str, float] = field(default_factory=lambda: dict(_MIX))
    missing_share: float = 0.1
    """Of the kept: questions whose passage retrieval does not find. Declining is right for them."""
    style: str = "logged"
    personas: int = 6
    """Documents for which the teacher imagines a reader; the others write for nobody in particular."""
    answer_check: str = "teacher"
    """Only keep what the model answers from its own passage alone. The bundled base model fails at many good questions,
    and those are the ones worth learning; so by default only a teacher is asked."""
    max_attempts: int = 2
    """Tries for one piece of work; a second one tells the teacher why the first was dropped."""
    max_items: int = 0
    """Written items, kept or not; 0: five for each one wanted."""
    max_tokens: int = 0
    """Tokens read and written by the model; 0: no limit."""
    max_minutes: int = 0
    """Of work, over all attempts; 0: no limit."""
    request_seconds: int = 60
    """How long the teacher may take for one reply."""

    def __post_init__(self) -> None:
        if self.writer not in WRITERS:
            raise PlanError(f"writer is one of {', '.join(WRITERS)}.")
        if self.answer_check not in CHECKS:
            raise PlanError(f"answer_check is one of {', '.join(CHECKS)}.")
        if self.style not in STYLES:
            raise PlanError(f"style is one of {', '.join(STYLES)}.")
        if unknown := sorted(set(self.mix) - set(FORMS)):
            raise PlanError(f"mix has no kind {unknown[0]!r}; it has {', '.join(FORMS)}.")
        if not all(isinstance(n, int | float) and 0 <= n <= 1 for n in self.mix.values()) or not sum(self.mix.values()):
            raise PlanError("Shares of the mix are between 0 and 1, and one of them is above 0.")
        if not 0 <= self.missing_share <= 0.5:
            raise PlanError("missing_share must be between 0 and 0.5.")
        for name, low, high in (
            ("personas", 0, 50), ("max_attempts", 1, 5), ("max_items", 0, 200_000), ("max_tokens", 0, 10**9),
            ("max_minutes", 0, 10_080), ("request_seconds", 1, 600),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise PlanError(f"{name} must be between {low} and {high:,}.")
        if len(self.teacher_model) > 200:
            raise PlanError("teacher_model is at most 200 characters long.")

    @property
    def checks_answers(self) -> bool:
        return self.answer_check == "always" or (self.answer_check == "teacher" and self.writer == "teacher")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Raises PlanError for a field that is unknown, of another type, or out of its limits."""
        known = {f.name: f for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise PlanError(f"A plan has no field {name!r}; it has {', '.join(known)}.")
            wanted = type(getattr(_DEFAULT, name))
            fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
            if not fits or (isinstance(value, bool) and wanted is not bool):
                raise PlanError(f"{name} has the wrong type.")
        return cls(**values)

    def share(self, form: str) -> float:
        return self.mix.get(form, 0.0) / sum(self.mix.values())


_DEFAULT = Plan()

"""What goes into a dataset version: the declared choices, stored with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


class RecipeError(ValueError):
    """A recipe that cannot be meant; the message says which field and what is allowed."""


@dataclass(frozen=True)
class Recipe:
    """Defaults follow the literature where it says something (ChatQA: about 5 % refusals cost nothing, Trust-Align:
    25 % train well) and are settings everywhere."""

    weight_corrected: int = 2
    weight_good: int = 1
    weight_synthetic: int = 1
    weight_handoff: int = 3
    """At least, whatever the origin: handing over is rare in a log and must not be missed."""
    synthetic_per_curated: float = 5.0
    """At most so many synthetic rows for one curated row."""
    missing_oracle_share: float = 0.3
    """Of the answer rows, repeated without the passage that answers: the right response is to decline."""
    max_decline_share: float = 0.4
    max_handoff_share: float = 0.4
    """Handing over beyond this share is left out. What people looked at holds more of it than what users ask, and a
    small model that has seen too much of it hands over whatever it is unsure of."""
    per_sentence_cap: int = 3
    """Synthetic and curated rows that may be answered by one and the same sentence."""
    validation_share: float = 0.08
    shuffled_share: float = 0.0
    """Rows whose evidence is offered in random order. Serving never does that: with the demo's data, rows that were
    shuffled or had their oracle put in taught not to trust the order."""
    near_duplicate: float = 0.9
    """Cosine from which a question counts as one of the benchmark's, or as one that is there already."""
    surrogates: bool = False
    """Write invented values where something was masked, in training and exports; stored rows keep placeholders."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in (
            "missing_oracle_share", "max_decline_share", "max_handoff_share", "validation_share", "shuffled_share",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 0.9:
                raise RecipeError(f"{name} must be between 0 and 0.9.")
        for name in ("weight_corrected", "weight_good", "weight_synthetic", "weight_handoff", "per_sentence_cap"):
            if not 1 <= getattr(self, name) <= 20:
                raise RecipeError(f"{name} must be between 1 and 20.")
        if not 0.5 <= self.near_duplicate <= 1:
            raise RecipeError("near_duplicate must be between 0.5 and 1.")
        if not 0 <= self.synthetic_per_curated <= 1000:
            raise RecipeError("synthetic_per_curated must be between 0 and 1000.")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Raises RecipeError for a field that is unknown or of another type."""
        known = {f.name: f for f in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise RecipeError(f"A recipe has no field {name!r}; it has {', '.join(known)}.")
            wanted = type(known[name].default)
            if wanted is bool:
                if not isinstance(value, bool):
                    raise RecipeError(f"{name} must be true or false.")
                continue
            if isinstance(value, bool) or not isinstance(value, (wanted, int)):
                raise RecipeError(f"{name} must be a number.")
        return cls(**values)

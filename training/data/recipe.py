"""What goes into a dataset version: the declared choices, stored with it. No database.

Each choice says itself what it means and what is allowed; form, file and validation are made from that.
"""

from __future__ import annotations

from dataclasses import Field, asdict, dataclass, field, fields
from datetime import date
from typing import Any

MAX_LISTED = 200
MAX_NAME = 500
SOURCES, LABELS, MIX, WEIGHTS, CAPS, TEXT = (
    "Sources", "What each label becomes", "Mix of contexts", "Weights", "Caps and shares", "Text and splits",
)  # fmt: skip
GROUPS = (SOURCES, LABELS, MIX, WEIGHTS, CAPS, TEXT)

LEARN, LEAVE_OUT, AND_PAIR, NOT_TO_SAY = "learn", "leave out", "learn and pair", "not to say"


class RecipeError(ValueError):
    """A recipe that cannot be meant; the message has a sentence per mistake, each beginning with the field's name."""


def _number(
    default: Any, group: str, between: tuple[float, float], label: str, help_text: str = "", *, none: bool = False
) -> Any:
    """``none``: 0 is allowed too and means that there is no limit."""
    return field(
        default=default,
        metadata={
            "group": group,
            "low": between[0],
            "high": between[1],
            "label": label,
            "help": help_text,
            "none": none,
        },
    )


def _share(default: float, group: str, label: str, help_text: str = "") -> Any:
    return _number(default, group, (0, 0.9), label, help_text)


def _flag(default: bool, group: str, label: str, help_text: str = "") -> Any:
    return field(default=default, metadata={"group": group, "label": label, "help": help_text})


def _choice(default: str, group: str, choices: tuple[str, ...], label: str, help_text: str = "") -> Any:
    return field(default=default, metadata={"group": group, "choices": choices, "label": label, "help": help_text})


def _names(group: str, label: str, help_text: str = "") -> Any:
    return field(default=(), metadata={"group": group, "label": label, "help": help_text})


def _day(group: str, label: str, help_text: str = "") -> Any:
    return field(default="", metadata={"group": group, "label": label, "help": help_text, "day": True})


@dataclass(frozen=True)
class Recipe:
    """Defaults follow the literature where it says something (ChatQA: about 5 % refusals cost nothing, Trust-Align:
    25 % train well) unless the results log measured otherwise: contexts stay as retrieval brought them, since rows that
    were shuffled or had their oracle put in taught a small model not to trust the order."""

    turns: bool = _flag(True, SOURCES, "Labelled turns")
    asked_from: str = _day(SOURCES, "Asked from", "A day, 2026-01-31; empty: from the beginning.")
    asked_before: str = _day(SOURCES, "Asked before", "A day, not included; empty: until now.")
    queues: tuple[str, ...] = _names(SOURCES, "Only turns of these queues", "Names; empty: of every queue, or none.")
    tags: tuple[str, ...] = _names(SOURCES, "Only turns with one of these tags")
    curated_sets: tuple[str, ...] = _names(SOURCES, "Imported sets", "Names.")
    comparisons: bool = _flag(
        False, SOURCES, "Blind comparisons", "Pairs on which everybody chose the same answer; never of this benchmark."
    )
    forms: tuple[str, ...] = _names(
        SOURCES, "Only written questions of these forms", "As on the page of a synthesis, e.g. single; empty: all."
    )
    without_documents: tuple[str, ...] = _names(
        SOURCES, "No answers from these documents", "Paths, or folders that end with a slash."
    )

    good: str = _choice(LEARN, LABELS, (LEARN, LEAVE_OUT), "Good answers")
    corrected: str = _choice(
        AND_PAIR, LABELS, (AND_PAIR, LEARN, LEAVE_OUT), "Corrected answers",
        "The logged answer becomes the rejected one of a pair, or is left out.",
    )  # fmt: skip
    declined: str = _choice(AND_PAIR, LABELS, (AND_PAIR, LEARN, LEAVE_OUT), "Right declines")
    missed: str = _choice(
        LEARN, LABELS, (LEARN, LEAVE_OUT), "Declines where retrieval missed it",
        "The documents do answer such a question: a small model may learn to decline its words.",
    )  # fmt: skip
    bad: str = _choice(
        NOT_TO_SAY, LABELS, (NOT_TO_SAY, LEAVE_OUT), "Bad answers without a better one",
        "Undesirable rows of KTO; supervised training and DPO do not see them.",
    )  # fmt: skip

    oracle_only_share: float = _share(
        0.0, MIX, "Share with the answering passages alone", "Of the answers; the others keep what retrieval brought."
    )
    several_oracles_share: float = _share(
        0.0, MIX, "Two questions in one, both answered",
        "So many rows more, of the answers; made of written and imported questions on one document.",
    )  # fmt: skip
    partial_share: float = _share(
        0.0, MIX, "Two questions in one, one answered", "As above; of the second the source is taken away."
    )
    missing_oracle_share: float = _share(
        0.3, MIX, "Share of answers repeated without their source",
        "The right response is then to decline: 0.08 is 8 of 100.",
    )  # fmt: skip
    fewer_passages_share: float = _share(
        0.0, MIX, "Share with fewer passages", "From one to all but one, drawn; the answering ones stay."
    )
    shuffled_share: float = _share(
        0.0, MIX, "Share with shuffled evidence",
        "Citations are numbered anew. Serving never shuffles, and learning from it was measured to hurt.",
    )  # fmt: skip

    weight_corrected: int = _number(
        2, WEIGHTS, (1, 20), "Weight of corrected rows", "How often each is seen in an epoch."
    )
    weight_good: int = _number(1, WEIGHTS, (1, 20), "Weight of good and declining rows")
    weight_synthetic: int = _number(1, WEIGHTS, (1, 20), "Weight of synthetic rows")
    weight_imported: int = _number(1, WEIGHTS, (1, 20), "Weight of imported and preferred rows")
    weight_handoff: int = _number(
        3, WEIGHTS, (1, 20), "Least weight of rows that hand over",
        "Whatever their origin: handing over is rare in a log and must not be missed.",
    )  # fmt: skip

    synthetic_per_curated: float = _number(
        5.0, CAPS, (0, 1000), "Synthetic rows per curated row", "At most so many; what is over is left out."
    )
    max_decline_share: float = _share(
        0.4, CAPS, "Largest share of declining rows", "More would teach to decline too often."
    )
    max_handoff_share: float = _share(
        0.4, CAPS, "Largest share of rows that hand over",
        "Of these and the answers. A small model that has seen too many hands over whatever it is unsure of.",
    )  # fmt: skip
    per_sentence_cap: int = _number(
        3, CAPS, (1, 20), "Rows per source sentence", "Of written questions, so that no sentence is learned by heart."
    )
    per_chunk_cap: int = _number(0, CAPS, (1, 10_000), "Rows per passage", "0: no cap.", none=True)
    per_document_cap: int = _number(0, CAPS, (1, 100_000), "Rows per document", "0: no cap.", none=True)
    per_person_cap: int = _number(0, CAPS, (1, 100_000), "Rows per user of the chatbot", "0: no cap.", none=True)
    per_origin_cap: int = _number(0, CAPS, (1, 1_000_000), "Rows per origin", "0: no cap.", none=True)

    validation_share: float = _share(0.08, TEXT, "Share for validation", "By conversation or document, never by row.")
    near_duplicate: float = _number(
        0.9, TEXT, (0.5, 1), "Similarity that counts as the same question", "Against the benchmark and among the rows."
    )
    max_tokens: int = _number(
        0, TEXT, (64, 131_072), "Most tokens of a row",
        "0: no limit. What is over loses its least similar distractors first, never an answer's source; what still "
        "does not fit is left out.", none=True,
    )  # fmt: skip
    surrogates: bool = _flag(
        False, TEXT, "Invented values for what was masked",
        "In training and exports; otherwise the model reads and learns to write [PERSON_1].",
    )  # fmt: skip
    seed: int = _number(1, TEXT, (0, 2**31 - 1), "Seed", "Same input and seed, same content hash.")

    def __post_init__(self) -> None:
        wrong = [problem for choice in fields(self) if (problem := problem_of(choice, getattr(self, choice.name)))]
        if not wrong and self.asked_from and self.asked_before and self.asked_from >= self.asked_before:
            wrong.append("asked_before must be later than asked_from.")
        if not wrong and not (self.turns or self.curated_sets or self.comparisons) and self.synthetic_per_curated == 0:
            wrong.append("turns, curated_sets and comparisons are all off: nothing would be left.")
        if wrong:
            raise RecipeError(" ".join(wrong))

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds: names are lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Raises RecipeError for fields that are unknown, of another type, or out of their limits."""
        known = {choice.name for choice in fields(cls)}
        if unknown := [str(name)[:60] for name in values if name not in known]:
            raise RecipeError(
                " ".join(f"{name} is no field of a recipe{_meant(name, known)}." for name in unknown[:10])
            )
        given: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return cls(**given)


def problem_of(choice: Field[Any], value: Any) -> str:
    """One sentence that begins with the name of the field; empty when the value is allowed."""
    name, meta, default = choice.name, choice.metadata, choice.default
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else f"{name} must be true or false."
    if isinstance(default, tuple):
        fits = isinstance(value, tuple) and all(isinstance(one, str) and 0 < len(one) <= MAX_NAME for one in value)
        return "" if fits and len(value) <= MAX_LISTED else f"{name} must be a list of at most {MAX_LISTED} names."
    if "choices" in meta:
        allowed = " or ".join(f"“{one}”" for one in meta["choices"])
        return "" if value in meta["choices"] else f"{name} must be {allowed}."
    if "day" in meta:
        return "" if isinstance(value, str) and _is_day(value) else f"{name} must be a day like 2026-01-31, or empty."
    wanted = (int,) if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        return f"{name} must be a {'whole ' if isinstance(default, int) else ''}number."
    if meta["low"] <= value <= meta["high"] or (meta["none"] and value == 0):
        return ""
    nothing = ", or 0 for no limit" if meta["none"] else ""
    return f"{name} must be between {meta['low']:g} and {meta['high']:,}{nothing}."


def _is_day(value: str) -> bool:
    if not value:
        return True
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _meant(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"; {near[0]} is" if near else ""

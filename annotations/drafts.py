"""What a labelling form says, between the page and the services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.http import QueryDict

from annotations.models import MAX_MISSED, Annotation, Reason, Verdict
from capture.models import Turn

DECLINE = "decline"
"""The third button: bad because it should have declined."""
_TOO_LONG_MARKS = 200


@dataclass(frozen=True)
class Draft:
    """The state of the form: what was posted, or an earlier label that its author wants to change."""

    choice: str = ""
    reasons: tuple[str, ...] = ()
    correction: str = ""
    marks: dict[int, str] = field(default_factory=dict)
    note: str = ""
    seconds: float | None = None
    missed: tuple[int, ...] = ()
    """Chunks of the knowledge base that retrieval should have found, in the order in which they were added."""

    @property
    def verdict(self) -> str:
        return Verdict.BAD.value if self.choice == DECLINE else self.choice

    @property
    def all_reasons(self) -> list[str]:
        """Reasons with the one that the third button stands for; none for a good answer (the page hides them)."""
        if self.verdict != Verdict.BAD:
            return []
        implied = [Reason.SHOULD_HAVE_DECLINED.value] if self.choice == DECLINE else []
        return list(dict.fromkeys([*implied, *self.reasons]))

    @property
    def used_correction(self) -> str:
        """The correction as far as it applies: the page hides it, but keeps it, while "good" is chosen."""
        return self.correction if self.verdict == Verdict.BAD else ""


def read_draft(post: QueryDict) -> Draft:
    """The form as posted. Nothing is judged here: `annotations.validation` does that."""
    marks: dict[int, str] = {}
    for name, value in list(post.items())[:_TOO_LONG_MARKS]:
        rank = name.removeprefix("mark-")
        if rank != name and rank.isdecimal() and len(rank) <= 5 and value:
            marks[int(rank)] = str(value)
    return Draft(
        choice=post.get("choice", ""),
        reasons=tuple(str(reason) for reason in post.getlist("reasons")),
        correction=post.get("correction", ""),
        marks=marks,
        note=post.get("note", ""),
        seconds=_seconds(post.get("seconds", "")),
        missed=_keys(post.getlist("missed")),
    )


def earlier_draft(turn: Turn, annotator: User) -> Draft:
    """The label that this person took back last on this turn, as a form to go on from; empty when there is none."""
    mine = Annotation.objects.filter(turn=turn, annotator=annotator, replaced_by=None)
    label = mine.order_by("-created_at", "-pk").prefetch_related("marks__retrieval", "missed").first()
    if label is None:
        return Draft()
    return Draft(
        choice=label.verdict,
        reasons=tuple(label.reasons),
        correction=label.correction,
        marks={mark.retrieval.rank: mark.relevance for mark in label.marks.all()},
        note=label.note,
        missed=tuple(passage.chunk_id for passage in label.missed.all() if passage.chunk_id is not None),
    )


def _keys(given: Sequence[str]) -> tuple[int, ...]:
    """Keys of rows, each once; one more than a label may name, so that too many are told and not cut."""
    keys = [int(key) for key in given if key.isdecimal() and key.isascii() and len(key) < 19]
    return tuple(dict.fromkeys(keys))[: MAX_MISSED + 1]


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

"""Lists of turns on the agreement page: each with its question, its labels, its verdict and where to settle it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.urls import reverse

from annotations.models import QueueItem, Reason, Resolution, Verdict
from annotations.trust.rows import LabelRow
from capture.models import Turn


@dataclass(frozen=True)
class Said:
    name: str
    verdict: str
    words: str
    seconds: float | None


@dataclass(frozen=True)
class ListedTurn:
    question: str
    address: str
    """Where a reviewer settles it; the page of the turn where it is in no queue."""
    said: tuple[Said, ...]
    settled: str
    """What counts and why; empty while nothing does."""
    verdict: str


def list_turns(
    turns: Sequence[uuid.UUID], labels: Mapping[uuid.UUID, Sequence[LabelRow]]
) -> dict[uuid.UUID, ListedTurn]:
    """Of those that are still there, in three queries."""
    questions = dict(Turn.objects.filter(pk__in=turns).values_list("pk", "question"))
    items: dict[uuid.UUID, tuple[int, int]] = {}
    for turn, queue, item in QueueItem.objects.filter(turn__in=turns).values_list("turn", "queue", "pk"):
        wanted = {label.queue for label in labels.get(turn, ())}
        if turn not in items or queue in wanted:
            items[turn] = (queue, item)
    verdicts = {row.turn_id: row for row in Resolution.objects.filter(turn__in=turns)}
    return {
        turn: ListedTurn(
            question=question,
            address=reverse("annotations:adjudicate", args=items[turn])
            if turn in items
            else reverse("admin:capture_turn_change", args=[turn]),
            said=tuple(map(_said, labels.get(turn, ()))),
            settled=verdicts[turn].get_how_display() if turn in verdicts else "",
            verdict=verdicts[turn].get_verdict_display() if turn in verdicts else "",
        )
        for turn, question in questions.items()
    }


def _said(label: LabelRow) -> Said:
    words = [str(Verdict(label.verdict).label), *(str(Reason(reason).label).lower() for reason in label.reasons)]
    return Said(label.name, label.verdict, " · ".join(words), label.seconds)

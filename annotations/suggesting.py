"""What programs and judges say of a turn, for annotators: only where the queue says so, and never in secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Exists, Max, OuterRef

from annotations.models import (
    ComparisonPair,
    LiveAnswer,
    MachineLabel,
    Queue,
    QueueItem,
    Suggested,
    SuggestionView,
    Verdict,
)


@dataclass(frozen=True)
class Suggestions:
    """What machines say of a turn. ``live``: what the live model answers to it, where the queue asks."""

    labels: Sequence[MachineLabel] = ()
    live: LiveAnswer | None = None


@transaction.atomic
def show_suggestions(*, item: QueueItem, annotator: User, decided: str) -> Suggestions:
    """The last word of each machine on the item's turn. That this person has seen it, and what they had decided by
    then, is written down first; the first time counts. Nothing where the queue shows none, or there are none.

    Args:
        decided: the verdict that is chosen on the form; anything else is none.
    """
    if not item.queue.show_suggestions:
        return Suggestions()
    labels = list(MachineLabel.objects.filter(turn=item.turn_id).standing())
    live = _live(item) if item.queue.ask_live else None
    if labels or live is not None:
        decided = decided if decided in Verdict.values else ""
        SuggestionView.objects.get_or_create(turn_id=item.turn_id, annotator=annotator, defaults={"decided": decided})
    return Suggestions(labels, live)


def _live(item: QueueItem) -> LiveAnswer | None:
    """Not while experts compare answers to this very turn blind: beside its name it would tell them which is whose."""
    compared = ComparisonPair.objects.filter(turn=OuterRef("turn"), round__closed=False)
    return LiveAnswer.objects.filter(~Exists(compared), turn=item.turn_id, problem="").first()


@dataclass(frozen=True)
class Asked:
    """How many open items of a queue have an answer of the live model, and when the last one came."""

    open: int
    answered: int
    last: datetime | None


def asked_of(queue: Queue) -> Asked | None:
    """For the queue's page; None where it does not ask. One query."""
    if not queue.ask_live:
        return None
    counts = QueueItem.objects.filter(queue=queue, done=False).aggregate(
        n=Count("pk"), answered=Count("turn__live_answer"), last=Max("turn__live_answer__asked_at")
    )
    return Asked(counts["n"], counts["answered"], counts["last"])


def suggested_to(queue: Queue | None, turn_id: UUID, annotator: User) -> str:
    """What `Annotation.suggested` says of a label that is submitted now. No query where the queue shows none."""
    if queue is None or not queue.show_suggestions:
        return ""
    seen = SuggestionView.objects.filter(turn=turn_id, annotator=annotator).values_list("decided", flat=True).first()
    if seen is None:
        return ""
    return Suggested.AFTER if seen else Suggested.BEFORE

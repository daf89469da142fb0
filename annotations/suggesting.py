"""What programs and judges say of a turn, for annotators: only where the queue says so, and never in secret."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from annotations.models import MachineLabel, Queue, QueueItem, Suggested, SuggestionView, Verdict


@transaction.atomic
def show_suggestions(*, item: QueueItem, annotator: User, decided: str) -> Sequence[MachineLabel]:
    """The last word of each machine on the item's turn. That this person has seen it, and what they had decided by
    then, is written down first; the first time counts. Nothing where the queue shows none, or there are none.

    Args:
        decided: the verdict that is chosen on the form; anything else is none.
    """
    if not item.queue.show_suggestions:
        return ()
    labels = list(MachineLabel.objects.filter(turn=item.turn_id).standing())
    if labels:
        decided = decided if decided in Verdict.values else ""
        SuggestionView.objects.get_or_create(turn_id=item.turn_id, annotator=annotator, defaults={"decided": decided})
    return labels


def suggested_to(queue: Queue | None, turn_id: UUID, annotator: User) -> str:
    """What `Annotation.suggested` says of a label that is submitted now. No query where the queue shows none."""
    if queue is None or not queue.show_suggestions:
        return ""
    seen = SuggestionView.objects.filter(turn=turn_id, annotator=annotator).values_list("decided", flat=True).first()
    if seen is None:
        return ""
    return Suggested.AFTER if seen else Suggested.BEFORE

"""Turns into queues, with the overlap drawn once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models, transaction

from annotations.machine.jobs import enqueue_recount
from annotations.models import Annotation, MachineLabel, Queue, QueueItem
from capture.models import Turn

_BATCH = 1000


@transaction.atomic
def add_turns(*, queue: Queue, turns: Iterable[Turn]) -> int:
    """Puts turns into a queue and returns how many were new there.

    Each item's need is fixed here: the queue's `labels_needed`, one more for the overlap share. Which turns overlap is
    drawn by hash of queue and turn, so adding the same turns again, in any order, draws the same ones.

    Raises:
        ValidationError: a turn belongs to another assistant; nothing is added.
    """
    queue = Queue.objects.select_for_update(no_key=True).get(pk=queue.pk)
    added = 0
    batch: list[Turn] = []
    for turn in turns:
        if turn.assistant_id != queue.assistant_id:
            raise ValidationError(f"Turn {turn.pk} belongs to another assistant than the queue “{queue}”.")
        batch.append(turn)
        if len(batch) == _BATCH:
            added += _add_batch(queue, batch)
            batch = []
    added += _add_batch(queue, batch)
    if added and MachineLabel.objects.filter(turn__queue_items__queue=queue).exists():
        enqueue_recount(queue.pk)  # these have labels already, which count here or, from now on, no more
    return added


def _add_batch(queue: Queue, turns: Sequence[Turn]) -> int:
    known = set(QueueItem.objects.filter(queue=queue, turn__in=turns).values_list("turn_id", flat=True))
    fresh = {turn.pk: turn for turn in turns if turn.pk not in known}
    labels: dict[UUID, int] = dict(
        Annotation.objects.current().filter(turn__in=fresh).order_by().values_list("turn").annotate(models.Count("pk"))
    )
    items = []
    for key in fresh:
        needed, there = queue.labels_needed + _overlaps(queue, key), labels.get(key, 0)
        items.append(QueueItem(queue=queue, turn_id=key, labels_needed=needed, labels_done=there, done=there >= needed))
    QueueItem.objects.bulk_create(items)
    return len(items)


def _overlaps(queue: Queue, turn: UUID) -> bool:
    drawn = int.from_bytes(hashlib.sha256(f"{queue.pk}:{turn}".encode()).digest()[:8]) / 2**64
    return drawn < queue.overlap_share

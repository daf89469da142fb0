"""When a machine's label counts like a person's: every queue that holds the turn must say so."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from contextlib import suppress

from django.contrib.postgres.aggregates import BoolAnd
from django.db import models, transaction

from annotations.errors import ItemGone
from annotations.machine.models import MachineLabel
from annotations.models import Queue, QueueItem
from annotations.settling import locked_turn, settle
from capture.models import Turn


def settled_by_machines(turns: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the turns that are in a queue, and in none that leaves the verdict to people."""
    if not turns:
        return set()
    queued = QueueItem.objects.filter(turn__in=turns).order_by().values("turn")
    return set(queued.annotate(all=BoolAnd("queue__machines_count")).filter(all=True).values_list("turn", flat=True))


def recount(queue: Queue) -> int:
    """Settles the turns of a queue that machines have labelled anew, and returns how many those are.

    For a queue whose rule was changed, or that got turns which machines had labelled before. Each turn is a
    transaction of its own; doing it twice changes nothing.
    """
    labelled = MachineLabel.objects.filter(turn=models.OuterRef("turn"))
    turns = QueueItem.objects.filter(models.Exists(labelled), queue=queue).order_by("turn")
    done = 0
    for key in list(turns.values_list("turn", flat=True)):
        with suppress(ItemGone), transaction.atomic():
            settle(locked_turn(Turn(pk=key)))
            done += 1
    return done

"""Machine labels as votes, where they count."""

from __future__ import annotations

from django.db import models

from annotations.machine.models import MachineLabel
from annotations.models import QueueItem
from annotations.resolving import Vote
from capture.models import Turn


def machine_votes(turn: Turn) -> list[Vote]:
    """The last verdict of each machine on the turn, if every queue that holds it lets machines count; else nothing.
    One query. What has only a score is no vote."""
    items = QueueItem.objects.filter(turn=turn)
    counts = models.Exists(items.filter(queue__machines_count=True))
    left_to_people = models.Exists(items.filter(queue__machines_count=False))
    labels = MachineLabel.objects.filter(counts, ~left_to_people, turn=turn).standing()
    return [
        Vote(key=label.pk, verdict=label.verdict, reasons=tuple(label.reasons)) for label in labels if label.verdict
    ]

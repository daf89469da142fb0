"""Machine labels as votes, where they count."""

from __future__ import annotations

from annotations.machine.models import MachineLabel
from annotations.resolving import Vote
from capture.models import Turn


def machine_votes(turn: Turn) -> list[Vote]:
    """The last verdict of each machine on the turn, where machines count (`annotations.settling.Standing`). What has
    only a score is no vote."""
    labels = MachineLabel.objects.filter(turn=turn).standing()
    return [
        Vote(key=label.pk, verdict=label.verdict, reasons=tuple(label.reasons)) for label in labels if label.verdict
    ]

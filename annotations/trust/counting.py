"""Which labels of a turn count, and why: said of every label that was ever given, also of those that do not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from annotations.models import Annotation, Resolution

COUNTS = "counts"


@dataclass(frozen=True)
class Standing:
    state: str
    """In a word or two: `COUNTS`, or what keeps it from counting."""
    why: str

    @property
    def counts(self) -> bool:
        return self.state == COUNTS


def standing(label: Annotation, resolution: Resolution | None, counted: Collection[int]) -> Standing:
    """Of one label.

    Args:
        counted: keys of the labels that made the resolution.
    """
    if label.withdrawn_at is not None:
        return Standing("taken back", "taken back by its author")
    if label.replaced_by_id is not None:
        return Standing("replaced", "replaced by its author’s later label")
    if resolution is None:
        return Standing("waits", "the turn has too few labels, or they disagree")
    if label.pk in counted:
        return Standing(COUNTS, _COUNTS[Resolution.How(resolution.how)])
    if resolution.how == Resolution.How.ADJUDICATED:
        if label.created_at > resolution.resolved_at:
            return Standing("late", "given after a reviewer had settled the turn")
        return Standing("overruled", "a reviewer decided otherwise")
    return Standing("outvoted", "outvoted by the other labels")


_COUNTS = {
    Resolution.How.SINGLE: "one label was enough",
    Resolution.How.AGREED: "the labels agree",
    Resolution.How.MAJORITY: "with the majority",
    Resolution.How.ADJUDICATED: "a reviewer decided the same",
}


def standings(resolution: Resolution) -> list[tuple[Annotation, Standing]]:
    """Of every label that was ever given on the turn, oldest first, in two queries."""
    counted = set(resolution.annotations.values_list("pk", flat=True))
    labels = Annotation.objects.filter(turn=resolution.turn_id).select_related("annotator").order_by("created_at", "pk")
    return [(label, standing(label, resolution, counted)) for label in labels]

"""Which labels of a turn count, and why: said of every label that was ever given, also of those that do not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from annotations.models import Annotation, Resolution


@dataclass(frozen=True)
class Standing:
    counts: bool
    why: str


def standing(label: Annotation, resolution: Resolution | None, counted: Collection[int]) -> Standing:
    """Of one label.

    Args:
        counted: keys of the labels that made the resolution.
    """
    if label.withdrawn_at is not None:
        return Standing(False, "taken back by its author")
    if label.replaced_by_id is not None:
        return Standing(False, "replaced by its author’s later label")
    if resolution is None:
        return Standing(False, "waits: too few labels, or they disagree")
    if label.pk in counted:
        return Standing(True, _COUNTS[Resolution.How(resolution.how)])
    if resolution.how == Resolution.How.ADJUDICATED:
        if label.created_at > resolution.resolved_at:
            return Standing(False, "given after a reviewer had settled the turn")
        return Standing(False, "a reviewer decided otherwise")
    return Standing(False, "outvoted")


_COUNTS = {
    Resolution.How.SINGLE: "one label was enough",
    Resolution.How.AGREED: "the labels agree",
    Resolution.How.MAJORITY: "with the majority",
    Resolution.How.ADJUDICATED: "a reviewer decided the same",
}

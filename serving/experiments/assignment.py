"""Which arm answers: drawn once per conversation or user by a keyed hash, and kept.

Nobody outside can foretell or choose an arm, every web process draws the same one, and nothing has to be stored before
an answer goes out. A question without an id of its conversation or user cannot be kept in one arm: what is live answers
it, and it does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from assistants.vault import keyed_hash
from serving.experiments.models import ArmName, Experiment, Exposure

if TYPE_CHECKING:
    from serving.models import Deployment
    from training.models import Adapter


@dataclass(frozen=True)
class Unit:
    """Whom a question is from, as the frontend names the conversation and the user; empty: it did not say."""

    conversation: str = ""
    user: str = ""


@dataclass(frozen=True)
class Exposed:
    """That a unit meets an arm of an experiment."""

    experiment: int
    epoch: int
    unit: str
    arm: str


def choose_arm(deployment: Deployment | None, unit: Unit) -> tuple[Adapter | None, Exposed | None]:
    """The adapter that answers (None: the base model), and what to note of it.

    At most one query, and that only in an experiment by conversation. ``deployment`` comes with its ``adapter`` and its
    ``experiment__candidate``.
    """
    if deployment is None:
        return None, None
    experiment = deployment.experiment
    if experiment is None or not experiment.shows_candidate:
        return deployment.adapter, None
    key = unit_key(experiment, unit)
    if not key:
        return deployment.adapter, None
    exposed = _exposed(experiment, key)
    return (experiment.candidate if exposed.arm == ArmName.CANDIDATE else deployment.adapter), exposed


def unit_key(experiment: Experiment, unit: Unit) -> str:
    """Keyed hash of what this experiment draws by, with the other where it is missing; empty: there is neither."""
    order = ("user", "conversation") if experiment.plan.get("unit") == "user" else ("conversation", "user")
    for kind in order:
        if name := getattr(unit, kind):
            return keyed_hash("experiment unit", experiment.pk, kind, name).hex()[:32]
    return ""


def drawn(experiment: Experiment, key: str) -> str:
    """The arm of a unit under today's share. Whom a small share has given the candidate keeps it under a larger one."""
    place = int(key[:16], 16) / 2**64
    return ArmName.CANDIDATE.value if place < experiment.share else ArmName.CONTROL.value


def _exposed(experiment: Experiment, key: str) -> Exposed:
    # A conversation that began under another share stays where it is, and counts where it began. Users come back for
    # months: they would never meet a larger share, so they are drawn anew (and only ever towards the candidate).
    if experiment.epoch > 1 and experiment.plan.get("unit") != "user":
        begun = Exposure.objects.filter(experiment=experiment, unit=key).order_by("pk")
        first = begun.values_list("epoch", "arm").first()
        if first is not None:
            return Exposed(experiment.pk, first[0], key, first[1])
    return Exposed(experiment.pk, experiment.epoch, key, drawn(experiment, key))

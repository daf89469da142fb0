"""The end of an experiment: from the next question on, what is live answers everybody."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.utils import timezone

from serving.experiments.models import Experiment

if TYPE_CHECKING:
    from serving.models import Deployment


def end_running(
    deployment: Deployment, *, ending: Experiment.Ending, reason: str, now: datetime | None = None
) -> Experiment | None:
    """Ends the experiment of a locked deployment and takes it off in memory: the caller saves the deployment, and
    writes the audit trail."""
    experiment, deployment.experiment = deployment.experiment, None
    if experiment is None:
        return None
    experiment.stage, experiment.share = Experiment.Stage.ENDED, 0.0
    experiment.ending, experiment.reason, experiment.notice = ending.value, reason, ""
    experiment.ended_at = now or timezone.now()
    experiment.save(update_fields=["stage", "share", "ending", "reason", "notice", "ended_at"])
    return experiment

"""What is live for an assistant, as each question asks: one prepared statement."""

from __future__ import annotations

from assistants.joined import Joined, Table
from assistants.models import Assistant
from serving.experiments.models import Experiment
from serving.models import Deployment
from training.models import Adapter

_LATER = frozenset({"manifest"})
"""Kilobytes of JSON that no question needs."""
_LIVE = Joined(
    Table(Deployment, "deployment"),
    Table(Adapter, "adapter", _LATER),
    Table(Experiment, "experiment"),
    Table(Adapter, "candidate", _LATER),
    behind=f'"{Deployment._meta.db_table}" AS deployment '
    f'LEFT JOIN "{Adapter._meta.db_table}" AS adapter ON adapter.id = deployment.adapter_id '
    f'LEFT JOIN "{Experiment._meta.db_table}" AS experiment ON experiment.id = deployment.experiment_id '
    f'LEFT JOIN "{Adapter._meta.db_table}" AS candidate ON candidate.id = experiment.candidate_id '
    "WHERE deployment.assistant_id = %(assistant)s",
)


def deployment_of(assistant: Assistant) -> Deployment | None:
    """With its ``adapter`` and its ``experiment__candidate`` (one query); None: nothing was ever live."""
    found = _LIVE.first({"assistant": assistant.pk})
    if found is None:
        return None
    deployment, adapter, experiment, candidate = found
    for each in (adapter, candidate):
        if each is not None:
            each.assistant = assistant
    deployment.assistant, deployment.adapter, deployment.experiment = assistant, adapter, experiment
    if experiment is not None:
        experiment.candidate = candidate
    return deployment

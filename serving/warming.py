"""Keeps in the engine what may be asked in the next second: what is live, what was live before, and the candidate.

An adapter that is not there is loaded by the first question that needs it; after a rollback that would be the one
moment when nobody wants to wait.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import transaction

from generation.engines import EngineError, EngineUnavailable
from serving.models import Deployment
from training.finetune.bases import from_state

if TYPE_CHECKING:
    from assistants.models import Assistant
    from training.models import Adapter

logger = logging.getLogger(__name__)
RELATED = ("assistant", "adapter__assistant", "previous__assistant", "experiment__candidate__assistant")


def warm_soon(assistant: Assistant) -> None:
    """Has a worker do it as soon as the step that needs it is stored."""
    from django_q.tasks import async_task

    key = assistant.pk
    transaction.on_commit(lambda: async_task("serving.jobs.warm", key, save=False), robust=True)


def wanted(deployment: Deployment) -> list[Adapter]:
    """What must be warm, the live one first."""
    experiment = deployment.experiment
    found = [deployment.adapter, experiment.candidate if experiment is not None else None, deployment.previous]
    unique = {adapter.pk: adapter for adapter in found if adapter is not None}
    digest = deployment.assistant.prompt_digest
    return [adapter for adapter in unique.values() if adapter.prompt_digest == digest]


def is_there() -> bool:
    """Whether the engine answers at all. Asked in front of long calls: one that hangs would keep the worker, which
    scrubs, until their limits are over."""
    from serving.api import client

    try:
        client().health()
    except EngineError as error:
        logger.info("The engine is away: %s", error)
        return False
    return True


def warm(assistant_id: int | None = None) -> int:
    """Loads what is wanted and not there, of one assistant or of all; how many adapters. An engine that is away, or
    refuses one, is told in the log: the next minute tries again."""
    from serving.api import client

    deployments = Deployment.objects.select_related(*RELATED)
    if assistant_id is not None:
        deployments = deployments.filter(assistant=assistant_id)
    missing = [(deployment, adapter) for deployment in deployments for adapter in wanted(deployment)]
    if not missing:
        return 0
    engine = client()
    loaded = 0
    try:
        there = {adapter.name for adapter in engine.adapters()}
    except EngineError as error:
        logger.info("Nothing is kept warm, the engine is away: %s", error)
        return 0
    for deployment, adapter in missing:
        if adapter.engine_name in there:
            continue
        try:
            engine.load_adapter(
                adapter.engine_name,
                from_state(adapter.folder),
                base_digest=adapter.base_digest,
                prompt_digest=deployment.assistant.prompt_digest,
            )
            loaded += 1
        except EngineUnavailable as error:  # each of the others would wait for it as long
            logger.warning("Nothing more is kept warm, the engine is away: %s", error)
            break
        except EngineError as error:
            logger.warning("%s is not warm: %s", adapter.engine_name, error)
    return loaded

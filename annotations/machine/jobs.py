"""What the worker does for machine labels."""

from __future__ import annotations

from functools import partial

from django.db import transaction

from annotations.machine.counting import recount
from annotations.models import Queue


def recount_queue(queue_id: int) -> str:
    """Settles a queue's turns anew after its rule for machines was changed. Again it changes nothing."""
    queue = Queue.objects.filter(pk=queue_id).first()
    return f"{recount(queue)} turns were settled anew." if queue is not None else "The queue is gone."


def enqueue_recount(queue_id: int) -> None:
    """Queues `recount_queue` when the transaction is through."""
    from django_q.tasks import async_task

    transaction.on_commit(
        partial(async_task, "annotations.machine.jobs.recount_queue", queue_id, task_name="Count machine labels")
    )

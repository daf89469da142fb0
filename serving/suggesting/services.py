"""When a pass over a queue begins, and how it is ended."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotations.models import Queue
from assistants.background import launch
from assistants.performing import log_path
from assistants.services import audit
from serving.suggesting.asking import NobodyToAsk, live_of, wanting
from serving.suggesting.models import SuggestionRun

AGAIN_AFTER = timedelta(minutes=5)
"""An engine that was away, or had too much to do, is left alone for that long."""
AGAIN_AFTER_FAILURE = timedelta(hours=1)
KEPT = timedelta(days=14)
FORGOTTEN = 200
MAX_QUEUES = 20
"""Passes that are begun at once."""


def begin_due(now: datetime | None = None) -> int:
    """Begins a pass for each queue that asks the live model and has items without its answer; how many. Run each
    minute, so that new turns, and another model, are seen soon."""
    now = now or timezone.now()
    _forget_old(now)
    queues = Queue.objects.filter(ask_live=True, show_suggestions=True, paused=False).select_related("assistant")
    begun = 0
    for queue in queues.order_by("pk"):
        if begun == MAX_QUEUES:
            break
        if _may_begin(queue, now):
            begun += begin(queue) is not None
    return begun


def begin(queue: Queue) -> SuggestionRun | None:
    """A pass over a queue, where there is something to ask and none runs."""
    try:
        if not wanting(queue, live_of(queue.assistant)).exists():
            return None
        with transaction.atomic():
            run = SuggestionRun.objects.create(assistant=queue.assistant, queue=queue)
    except (NobodyToAsk, IntegrityError):  # nobody may be asked, or somebody else has just begun one
        return None
    launch(run)
    return run


@transaction.atomic
def cancel_run(*, run: SuggestionRun, actor: User) -> bool:
    """Ends the pass and has the queue ask no more, until an admin says so again. False when it had ended already."""
    asked = run.request_cancel()
    if asked:
        Queue.objects.filter(pk=run.queue_id).update(ask_live=False)
        audit(assistant=run.assistant, actor=actor, action="suggestions.cancelled", target=str(run.queue))
    return asked


def _forget_old(now: datetime) -> None:
    """Passes are many and small: neither rows nor logs of them are worth keeping for long."""
    for run in SuggestionRun.objects.filter(finished_at__lt=now - KEPT).order_by("pk")[:FORGOTTEN]:
        log_path(run._meta.label, run.pk).unlink(missing_ok=True)
        run.delete()


def _may_begin(queue: Queue, now: datetime) -> bool:
    last = SuggestionRun.objects.filter(queue=queue).order_by("-created_at").first()
    if last is None:
        return True
    if last.is_active:
        return False
    ended = last.finished_at or last.created_at
    if last.state == SuggestionRun.State.FAILED:
        return ended < now - AGAIN_AFTER_FAILURE
    return not last.stopped or ended < now - AGAIN_AFTER

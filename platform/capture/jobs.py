"""Background entry points of the capture room, called by django-q2."""

from __future__ import annotations

from assistants import schedules
from capture import counting
from capture.otlp import closing
from capture.scrub import scrub_waiting as drain

SECONDS = 240
"""Of one job: well below the broker's `retry`, after which it would be run a second time."""
GATHER_SECONDS = 1.0
"""Behind a few turns, for those that follow them: see `capture.scrub.scrub_waiting`."""


def scrub_waiting() -> str:
    """Scrubs what waits; queues itself again when there is more than fits in one job. Also run each minute."""
    report = drain(seconds=SECONDS, gather=GATHER_SECONDS)
    counting.flush()
    counting.forget_old()
    if report.more:
        enqueue_scrub()
    return report.sentence


def enqueue_scrub() -> None:
    """Queues `scrub_waiting` once; the caller knows that none is queued (see `capture.receiving`)."""
    from django_q.tasks import async_task

    ensure_schedule()
    async_task("capture.jobs.scrub_waiting", task_name="Scrub what waits")


def ensure_schedule() -> None:
    """Runs `scrub_waiting` each minute: the safety net for items whose job was never queued or whose worker died."""
    schedules.ensure_schedule("Scrub what waits", "capture.jobs.scrub_waiting", 1)


def close_traces() -> str:
    """Makes turns of traces that are whole or have waited long enough. Also run each minute."""
    report = closing.close_traces(seconds=SECONDS)
    counting.flush()
    if report.more:
        enqueue_close()
    return report.sentence


def enqueue_close() -> None:
    """Queues `close_traces`; one too many finds nothing to do."""
    from django_q.tasks import async_task

    async_task("capture.jobs.close_traces", task_name="Close traces")


def ensure_close_schedule() -> None:
    """Runs `close_traces` each minute: nothing else would notice that a trace has waited long enough."""
    schedules.ensure_schedule("Close traces", "capture.jobs.close_traces", 1)


def fill_vectors(turns: list[str], passages: list[int]) -> str:
    """Embeds again what was changed: by ``str(pk)`` of turns, and pks of passages."""
    from capture.vectors import fill

    return f"{fill(turns, passages)} embedded"


def enqueue_vectors(turns: list[str], passages: list[int]) -> None:
    """Queues `fill_vectors`: a page does not wait for the embedder."""
    from django.conf import settings
    from django_q.tasks import async_task

    if settings.RATCHET_FOREGROUND:
        fill_vectors(turns, passages)
        return
    async_task("capture.jobs.fill_vectors", turns, passages, task_name="Embed changed texts")


def expire_values() -> str:
    """Destroys the values of uncertain masks whose time is over, and forgotten vectors are made. Run each hour."""
    from capture import review, vectors

    return f"{review.expire()} expired, {vectors.fill_forgotten()} embedded"


def ensure_expiry_schedule() -> None:
    """Runs `expire_values` each hour. Made with the first uncertain mask."""
    schedules.ensure_schedule(
        "Destroy values that were not reviewed in time", "capture.jobs.expire_values", schedules.HOURLY
    )

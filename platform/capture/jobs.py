"""Background entry points of the capture room, called by django-q2."""

from __future__ import annotations

from capture.otlp import closing
from capture.scrub import scrub_waiting as drain

SECONDS = 240
"""Of one job: well below the broker's `retry`, after which it would be run a second time."""


def scrub_waiting() -> str:
    """Scrubs what waits; queues itself again when there is more than fits in one job. Also run each minute."""
    report = drain(seconds=SECONDS)
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
    from django_q.models import Schedule

    Schedule.objects.get_or_create(
        name="Scrub what waits",
        defaults={"func": "capture.jobs.scrub_waiting", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1},
    )


def close_traces() -> str:
    """Makes turns of traces that are whole or have waited long enough. Also run each minute."""
    report = closing.close_traces(seconds=SECONDS)
    if report.more:
        enqueue_close()
    return report.sentence


def enqueue_close() -> None:
    """Queues `close_traces`; one too many finds nothing to do."""
    from django_q.tasks import async_task

    async_task("capture.jobs.close_traces", task_name="Close traces")


def ensure_close_schedule() -> None:
    """Runs `close_traces` each minute: nothing else would notice that a trace has waited long enough."""
    from django_q.models import Schedule

    Schedule.objects.get_or_create(
        name="Close traces",
        defaults={"func": "capture.jobs.close_traces", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1},
    )

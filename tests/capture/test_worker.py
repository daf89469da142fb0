"""The worker's watch over its own schedule."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Task

from capture.management.commands.worker import (
    OVERDUE,
    queue_stands_still,
    schedule_is_late,
    stands_still,
)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("behind", "repeats", "late"),
    [
        (OVERDUE + timedelta(seconds=5), -1, True),
        (OVERDUE - timedelta(seconds=5), -1, False),
        (-timedelta(hours=1), -1, False),
        (timedelta(days=1), 0, False),  # has had its last run
    ],
)
def test_a_schedule_is_late_when_a_job_should_have_begun_long_ago(behind: timedelta, repeats: int, late: bool) -> None:
    Schedule.objects.all().delete()
    assert not schedule_is_late()
    Schedule.objects.create(func="capture.jobs.scrub", next_run=timezone.now() - behind, repeats=repeats)
    assert schedule_is_late() is late


@pytest.mark.django_db
def test_a_worker_that_computes_has_longer() -> None:
    """Under load a new worker found the schedule of its own start late, and ended itself before it had begun."""
    Schedule.objects.all().delete()
    job = Schedule.objects.create(func="capture.jobs.scrub", next_run=timezone.now() - timedelta(minutes=3), repeats=-1)
    assert stands_still(idle=True)
    assert not stands_still(idle=False)
    job.next_run = timezone.now() - timedelta(minutes=6)
    job.save()
    assert stands_still(idle=False)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("waiting", "ended_before", "still"),
    [
        ("default", OVERDUE + timedelta(seconds=5), True),
        ("default", None, True),
        ("default", timedelta(seconds=5), False),
        ("train", None, False),  # another cluster's
        (None, None, False),
    ],
)
def test_a_queue_stands_still_when_jobs_wait_and_none_has_ended(
    waiting: str | None, ended_before: timedelta | None, still: bool
) -> None:
    if waiting:
        OrmQ.objects.create(key=waiting, payload="", lock=timezone.now())
    if ended_before is not None:
        ended = timezone.now() - ended_before
        Task.objects.create(id="1", name="scrub", func="capture.jobs.scrub", started=ended, stopped=ended)
    assert queue_stands_still() is still

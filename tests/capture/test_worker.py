"""The worker's watch over its own schedule."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import Schedule

from capture.management.commands.worker import OVERDUE, schedule_is_late


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

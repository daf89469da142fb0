"""One schedule of a name, however many ask for it at once; and two that are there stop nobody."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django_q.models import Schedule

from assistants.schedules import DAILY, ensure_schedule


@pytest.mark.django_db(transaction=True)
def test_many_at_once_make_one() -> None:
    ready = threading.Barrier(6)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            ready.wait(10)
            ensure_schedule("Sweep the floor", "assistants.jobs.sweep", 5)
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    (one,) = Schedule.objects.filter(name="Sweep the floor")
    assert (one.schedule_type, one.minutes, one.repeats) == (Schedule.MINUTES, 5, -1)


@pytest.mark.django_db
def test_two_of_a_name_are_left_alone() -> None:
    for _ in range(2):
        Schedule.objects.create(name="Sweep the floor", func="assistants.jobs.sweep", schedule_type=Schedule.DAILY)
    ensure_schedule("Sweep the floor", "assistants.jobs.sweep", DAILY)
    assert Schedule.objects.filter(name="Sweep the floor").count() == 2

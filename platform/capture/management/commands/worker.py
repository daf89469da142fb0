"""`manage.py worker`: runs short jobs, and begins with what a worker before it may have left."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from datetime import timedelta
from typing import Any

import psutil
from django.core.management.base import CommandError
from django.db import DatabaseError, connections
from django.utils import timezone
from django_q.conf import Conf
from django_q.management.commands.qcluster import Command as Cluster
from django_q.models import OrmQ, Schedule, Task

from assistants.key_check import HINT, PROBLEM, hash_key_fits
from assistants.priority import give_way
from capture import jobs

logger = logging.getLogger(__name__)
LOOK_SECONDS = 10
OVERDUE = timedelta(seconds=75)
"""The schedule is looked at every 30 seconds, and knows jobs of every minute."""
OVERDUE_THOUGH_BUSY = timedelta(minutes=5)
"""A machine with more to do than it can takes minutes to start a cluster: one that computes is not ended for that."""
IDLE_SHARE = 0.02
"""Of a core: what processes that wait for each other use at most, looking at clocks."""


class Command(Cluster):
    help = "Runs the worker for short jobs: scrubbing, closing traces, the schedule."

    def handle(self, *args: Any, **options: Any) -> None:
        """A job that died with its worker comes back from the queue only after a quarter of an hour, and the schedule
        takes up to a minute: what waits is looked at now."""
        give_way()
        try:
            if not hash_key_fits():
                raise CommandError(f"{PROBLEM} {HINT}")
            jobs.enqueue_scrub()
            jobs.enqueue_close()
        except DatabaseError:
            logger.warning("The database does not answer; what waits is left to the schedule.")
        connections.close_all()  # the cluster forks, and a connection must not be shared
        threading.Thread(target=watch, daemon=True).start()
        super().handle(*args, **options)


def watch() -> None:
    """Ends this process with its children when the schedule or the queue stands still, so that the supervisor starts it
    anew.

    A child of the cluster that dies when the database does may hold the lock of a queue; the others then wait for it
    for ever, and nothing would be scrubbed any more. Which of them waits decides whether the schedule goes on.
    """
    stuck, used = 0, 0.0
    while stuck < 2:
        time.sleep(LOOK_SECONDS)
        before, used = used, _processor_seconds()
        idle = abs(used - before) < IDLE_SHARE * LOOK_SECONDS
        try:
            still = stands_still(idle=idle)
        except DatabaseError:
            still = False
        finally:
            connections.close_all()
        # After a pause of the whole platform everything is late until the cluster has looked once.
        stuck = stuck + 1 if still and _age() > OVERDUE.total_seconds() else 0
    logger.critical("The schedule or the queue stands still; this worker ends and is started again.")
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


def stands_still(*, idle: bool) -> bool:
    """Whether the schedule or the queue does; ``idle``: none of the worker's processes computes."""
    if schedule_is_late(OVERDUE if idle else OVERDUE_THOUGH_BUSY):
        return True
    return idle and queue_stands_still()


def queue_stands_still() -> bool:
    """Whether jobs wait and none has ended for long. Of a worker whose processes use no processor time: a job may take
    longer than that."""
    ended = Task.objects.filter(stopped__gt=timezone.now() - OVERDUE)
    return OrmQ.objects.filter(key=Conf.PREFIX).exists() and not ended.exists()


def schedule_is_late(by: timedelta = OVERDUE) -> bool:
    """Whether a job of the schedule should have begun long ago."""
    return Schedule.objects.filter(next_run__lt=timezone.now() - by).exclude(repeats=0).exists()


def _age() -> float:
    return time.time() - psutil.Process().create_time()


def _processor_seconds() -> float:
    """Of all children together; one that has just died is left out."""
    seconds = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds

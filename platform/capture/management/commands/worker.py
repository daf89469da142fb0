"""`manage.py worker`: runs short jobs, and begins with what a worker before it may have left."""

from __future__ import annotations

import logging
from typing import Any

from django.db import DatabaseError, connections
from django_q.management.commands.qcluster import Command as Cluster

from capture import jobs

logger = logging.getLogger(__name__)


class Command(Cluster):
    help = "Runs the worker for short jobs: scrubbing, closing traces, the schedule."

    def handle(self, *args: Any, **options: Any) -> None:
        """A job that died with its worker comes back from the queue only after a quarter of an hour, and the schedule
        takes up to a minute: what waits is looked at now."""
        try:
            jobs.enqueue_scrub()
            jobs.enqueue_close()
        except DatabaseError:
            logger.warning("The database does not answer; what waits is left to the schedule.")
        connections.close_all()  # the cluster forks, and a connection must not be shared
        super().handle(*args, **options)

"""Background entry points of the serving room."""

from __future__ import annotations

from serving import spool


def drain_spool() -> int:
    return spool.drain()


def ensure_drain() -> None:
    """Schedules the storing of spooled turns for each minute."""
    from django_q.models import Schedule

    Schedule.objects.get_or_create(
        name="Store spooled turns",
        defaults={"func": "serving.jobs.drain_spool", "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1},
    )

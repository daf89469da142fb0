"""What runs by itself: each under a name, and once, whoever asks for it and however many at a time."""

from __future__ import annotations

from typing import Any, Final

from django.db import connection, transaction

HOURLY: Final = "H"
DAILY: Final = "D"
WEEKLY: Final = "W"


def ensure_schedule(name: str, func: str, every: int | str) -> None:
    """Schedules ``func`` (a dotted path), unless it is; ``every``: minutes, or `HOURLY`, `DAILY`, `WEEKLY`.

    django-q2 does not keep names apart. With ``get_or_create`` two processes that met an empty table each made one, and
    from then on every call failed, for there were two: a log API first used by two clients at once answered 500
    for good. So it is made under a lock, and looked for with ``exists``. What is there is not changed: people may have
    put it off in the admin.
    """
    from django_q.models import Schedule

    if Schedule.objects.filter(name=name).exists():
        return
    kind: dict[str, Any] = {"schedule_type": Schedule.MINUTES, "minutes": every}
    if isinstance(every, str):
        kind = {"schedule_type": every}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('assistants.schedules'))")
        if not Schedule.objects.filter(name=name).exists():
            Schedule.objects.create(name=name, func=func, repeats=-1, **kind)

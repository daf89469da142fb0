"""How much of an assistant may wait in quarantine, looked at beside the requests.

A request compares two numbers in memory. They are counted at most once a second, by a thread of its own in web
processes, and no further than to the bound; what this process takes in between is added. So the bound can be passed by
what other processes take within a second. A counter in the database would be exact, and make all requests of an
assistant wait for one row.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from assistants.errors import ApiError
from assistants.models import Assistant

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
RETRY_SECONDS = 10


@dataclass
class Load:
    """What of an assistant is in quarantine, waiting or held. ``at``: on the monotonic clock."""

    at: float
    items: int
    size: int

    @property
    def is_full(self) -> bool:
        return self.items >= settings.RATCHET_QUARANTINE_MAX_ITEMS or self.size >= settings.RATCHET_QUARANTINE_MAX_BYTES


_loads: dict[int, Load] = {}
_looking: set[int] = set()
_lock = threading.Lock()


def check_room(assistant: Assistant) -> None:
    """Before anything of a request is read.

    Raises:
        assistants.errors.ApiError: 503 with Retry-After, as much waits as may.
    """
    load = _loads.get(assistant.pk)
    if load is None or time.monotonic() - load.at >= LOOK_SECONDS:
        load = _refreshed(assistant.pk, load)
    if load is not None and load.is_full:
        raise ApiError(
            503,
            detail="The quarantine of this assistant is full: too much waits to be scrubbed. Try again later.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )


def waiting(assistant: Assistant) -> int:
    """Items in quarantine, as far as this process knows."""
    load = _loads.get(assistant.pk)
    return 0 if load is None else load.items


def added(assistant: Assistant, items: int, size: int) -> None:
    """Counts what was stored since the last look."""
    with _lock:
        if (load := _loads.get(assistant.pk)) is not None:
            load.items += items
            load.size += size


def look(assistant_id: int) -> Load:
    """Counts now, no further than to the bound."""
    at = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT octet_length(payload) AS size "
            "FROM capture_quarantine WHERE assistant_id = %s LIMIT %s) AS waits",
            [assistant_id, settings.RATCHET_QUARANTINE_MAX_ITEMS],
        )
        items, size = cursor.fetchone()
    load = Load(at, int(items), int(size))
    with _lock:
        _loads[assistant_id] = load
    return load


def full_assistants() -> list[int]:
    """Primary keys of those without room, counted now: for workers that fill the quarantine themselves."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT assistant_id FROM capture_quarantine GROUP BY assistant_id "
            "HAVING count(*) >= %s OR sum(octet_length(payload)) >= %s",
            [settings.RATCHET_QUARANTINE_MAX_ITEMS, settings.RATCHET_QUARANTINE_MAX_BYTES],
        )
        return [row[0] for row in cursor.fetchall()]


def forget() -> None:
    """Looks again at the next request."""
    with _lock:
        _loads.clear()


def _refreshed(assistant_id: int, old: Load | None) -> Load | None:
    """In a web process the old numbers, which a thread renews: a request never waits for the count."""
    if settings.PROCESS != "web":
        return look(assistant_id)
    with _lock:
        starts = assistant_id not in _looking
        _looking.add(assistant_id)
    if starts:
        threading.Thread(target=_look_beside, args=(assistant_id,), name="quarantine-look", daemon=True).start()
    return old


def _look_beside(assistant_id: int) -> None:
    try:
        look(assistant_id)
    except (DatabaseError, InterfaceError):
        logger.exception("The quarantine could not be looked at.")
    finally:
        connection.close()  # gives it back to the pool
        with _lock:
            _looking.discard(assistant_id)

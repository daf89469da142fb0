"""Counts of what comes in, in memory, written to `IntakeCount` in batches: no request waits for a counter.

A web process writes a few seconds after something happened, from a thread; a worker between its batches. What a killed
process had not written is missing from the counts, and from nothing else.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from assistants.beside import Beside
from assistants.errors import ApiError
from assistants.models import ApiKey, Assistant
from capture.models import IntakeCount

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
KEPT = timedelta(days=2)
"""Of the counts by minute; those since ever stay."""
_MOST = 10_000
_REASONS = {400: "unreadable", 403: "scope", 413: "too large", 415: "content type", 422: "unreadable", 429: "rate",
            503: "full"}  # fmt: skip

_Row = tuple[int, int | None, int, str, str]
"""Assistant, key, minute since 1970, event, reason."""
_counts: Counter[_Row] = Counter()
_beside = Beside(
    "intake-counts", seconds=FLUSH_SECONDS, flush=lambda: flush(), waits=lambda: _counts  # noqa: PLW0108 - comes below
)  # fmt: skip
_flushed = [0.0]


def count(assistant_id: int, key_id: int | None, event: IntakeCount.Event, reason: str, n: int = 1) -> None:
    """Adds ``n``. Costs a lock and a dictionary."""
    if n <= 0:
        return
    row = (assistant_id, key_id, int(time.time() // 60), event.value, reason[:24])
    with _beside.lock:
        if row in _counts or len(_counts) < _MOST:
            _counts[row] += n
        _beside.start()


def count_statuses(assistant: Assistant, key: ApiKey | None, kind: str, statuses: Iterable[str]) -> None:
    """``statuses`` of items as the log API answers them; ``kind`` of item."""
    key_id = key.pk if key is not None else None
    for status, n in Counter(statuses).items():
        if status == "created":
            count(assistant.pk, key_id, IntakeCount.Event.RECEIVED, kind, n)
        elif status == "duplicate":
            count(assistant.pk, key_id, IntakeCount.Event.REPEATED, kind, n)
        else:
            count(assistant.pk, key_id, IntakeCount.Event.REFUSED, status, n)


def count_refusal(key: ApiKey, error: ApiError) -> None:
    """A request that was refused as a whole."""
    reason = _REASONS.get(error.status_code, f"status {error.status_code}")
    count(key.assistant_id, key.pk, IntakeCount.Event.REFUSED, reason)


def flush() -> None:
    """Writes what was counted. Never raises: without a database the counts wait, within their bound."""
    with _beside.lock:
        rows = _counts.copy()
        _counts.clear()
        _flushed[0] = time.monotonic()
    if not rows:
        return
    try:
        _write(rows)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Counts of what came in could not be written (%s).", type(error).__name__)
        if not connection.in_atomic_block:
            with _beside.lock:
                _counts.update(rows)


def flush_due() -> None:
    """`flush`, if the last one is some seconds ago."""
    if time.monotonic() - _flushed[0] >= FLUSH_SECONDS:
        flush()


def forget_old() -> int:
    """Deletes the counts of minutes that no page shows any more; how many."""
    return IntakeCount.objects.filter(minute__lt=timezone.now() - KEPT).delete()[0]


def reset() -> None:
    """Forgets what was not written, and ends the thread that would write it."""
    _beside.stop(_counts.clear)


# In one order everywhere, so that two processes wait for each other in the same order. Assistants and keys that were
# deleted meanwhile take their counts along.
_UPSERT = """
INSERT INTO capture_intakecount AS kept (assistant_id, api_key_id, minute, event, reason, count)
SELECT given.assistant_id, given.key_id, given.minute, given.event, given.reason, sum(given.n)
FROM unnest(%s::bigint[], %s::bigint[], %s::timestamptz[], %s::text[], %s::text[], %s::bigint[])
     AS given (assistant_id, key_id, minute, event, reason, n)
JOIN assistants_assistant ON assistants_assistant.id = given.assistant_id
LEFT JOIN assistants_apikey ON assistants_apikey.id = given.key_id
WHERE given.key_id IS NULL OR assistants_apikey.id IS NOT NULL
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (assistant_id, api_key_id, minute, event, reason) DO UPDATE SET count = kept.count + excluded.count
"""


def _write(rows: Counter[_Row]) -> None:
    both = [
        (assistant, key, minute, event, reason, n)
        for (assistant, key, at, event, reason), n in rows.items()
        for minute in (datetime.fromtimestamp(at * 60, UTC), None)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT, [list(column) for column in zip(*both, strict=True)])

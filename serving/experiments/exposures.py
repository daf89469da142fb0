"""Notes who met which arm, without any answer waiting for it: in memory, written in batches by a thread.

A web process writes each second and when it ends. One that is killed loses what it noted within that second; arms lose
alike, so what is left is still a fair comparison.
"""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from assistants.beside import Beside
from serving.experiments.assignment import Exposed

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
MOST = 100_000
"""Waiting in memory while the database is away: about 20 MB."""

_Row = tuple[int, str, str, str, int, datetime]
_rows: list[_Row] = []
beside = Beside(
    "exposures", seconds=FLUSH_SECONDS, flush=lambda: flush(), waits=lambda: _rows  # noqa: PLW0108 - comes below
)  # fmt: skip


def note(exposed: Exposed, client_id: str, *, at: datetime | None = None) -> None:
    """Costs a lock and a list."""
    row = (exposed.experiment, client_id, exposed.unit, exposed.arm, exposed.epoch, at or timezone.now())
    with beside.lock:
        if len(_rows) < MOST:
            _rows.append(row)
        beside.start()


def flush() -> int:
    """Writes what was noted; how many rows. Never raises: without a database they wait, within their bound."""
    with beside.lock:
        rows = _rows.copy()
        _rows.clear()
    if not rows:
        return 0
    try:
        _write(rows)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("Exposures could not be written (%s); they wait.", type(error).__name__)
        if not connection.in_atomic_block:
            with beside.lock:
                _rows[:0] = rows[: MOST - len(_rows)]
        return 0
    return len(rows)


# Experiments that were deleted meanwhile take their rows along; a row that is there already stays.
_INSERT = """
INSERT INTO serving_exposure (experiment_id, client_id, unit, arm, epoch, at, failed, counted)
SELECT given.experiment, given.client_id, given.unit, given.arm, given.epoch, given.at, false, false
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::timestamptz[])
     AS given (experiment, client_id, unit, arm, epoch, at)
JOIN serving_experiment ON serving_experiment.id = given.experiment
ORDER BY given.at
ON CONFLICT DO NOTHING
"""


def _write(rows: list[_Row]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])


def reset() -> None:
    """Forgets what was not written, and ends the thread that would write it."""
    beside.stop(_rows.clear)

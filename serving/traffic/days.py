"""Days of traffic, as sums of the hours that begin on them: 90 days of 14 models are 1,260 rows instead of 30,000."""

from __future__ import annotations

from typing import Any

from serving.traffic.latency import BINS
from serving.traffic.models import OTHER_MODELS, TrafficDay, TrafficHour

_HOURS, _DAYS = TrafficHour._meta.db_table, TrafficDay._meta.db_table
_DAY = "SELECT DISTINCT assistant_id, (hour AT TIME ZONE %(zone)s)::date AS day"

_NUMBERS = ("turns", "declined", "up", "down", "escalated", "prompt_tokens", "completion_tokens")
_SUMS = ", ".join(f"sum({name})" for name in _NUMBERS)
# By place: taken apart into rows and put together again they cost a hundred times as much.
_BINS = ", ".join(f"coalesce(sum(latencies[{place}]), 0)::int" for place in range(1, BINS + 1))

# Each hour has its busiest names; 24 such lists would make a long one of a day, so that a day has its busiest too.
_NAMED = f"""
CREATE TEMPORARY TABLE named ON COMMIT DROP AS
SELECT assistant_id, day, CASE WHEN place <= %(most)s THEN model ELSE %(other)s END AS model,
       CASE WHEN place <= %(most)s THEN adapter ELSE '' END AS adapter, {", ".join(_NUMBERS)}, latencies, masked
FROM (
    SELECT *, dense_rank() OVER (PARTITION BY assistant_id, day ORDER BY busy DESC, model, adapter) AS place
    FROM (
        SELECT changed.day, h.*, sum(turns) OVER (PARTITION BY h.assistant_id, changed.day, model, adapter) AS busy
        FROM changed JOIN {_HOURS} h ON h.assistant_id = changed.assistant_id
             AND h.hour >= changed.day::timestamp AT TIME ZONE %(zone)s
             AND h.hour < (changed.day + 1)::timestamp AT TIME ZONE %(zone)s
    ) hours
) ranked
"""  # noqa: S608 - names of tables

_COUNT = f"""
INSERT INTO {_DAYS} (assistant_id, day, model, adapter, {", ".join(_NUMBERS)}, latencies, masked)
SELECT assistant_id, day, model, adapter, {_SUMS}, ARRAY[{_BINS}], '{{}}'
FROM named GROUP BY assistant_id, day, model, adapter
"""  # noqa: S608

_MASKED = f"""
UPDATE {_DAYS} SET masked = found.masked FROM (
    SELECT assistant_id, day, model, adapter, jsonb_object_agg(type, n) AS masked
    FROM (SELECT assistant_id, day, model, adapter, type, sum(n::bigint) AS n
          FROM named CROSS JOIN LATERAL jsonb_each_text(masked) AS mask (type, n)
          GROUP BY assistant_id, day, model, adapter, type) each
    GROUP BY assistant_id, day, model, adapter
) found
WHERE {_DAYS}.assistant_id = found.assistant_id AND {_DAYS}.day = found.day
      AND {_DAYS}.model = found.model AND {_DAYS}.adapter = found.adapter
"""  # noqa: S608


def count_days(cursor: Any, *, zone: str, every: bool, most: int) -> None:
    """Puts the sums of the days of the hours in the temporary table ``touched`` in place of what was there.

    Args:
        zone: whose days; hours belong to the day on which they begin.
        every: of all hours, when days were those of another zone until now.
        most: names of models with adapters in one day of an assistant; the rest is `OTHER_MODELS`.
    """
    values = {"zone": zone, "other": OTHER_MODELS, "most": most}
    if every:
        cursor.execute(f"DELETE FROM {_DAYS}")  # noqa: S608
    source = _HOURS if every else "touched"
    cursor.execute(f"CREATE TEMPORARY TABLE changed ON COMMIT DROP AS {_DAY} FROM {source}", values)
    cursor.execute(f"DELETE FROM {_DAYS} USING changed WHERE {_DAYS}.assistant_id = changed.assistant_id "  # noqa: S608
                   f"AND {_DAYS}.day = changed.day")  # fmt: skip
    cursor.execute("ANALYZE changed")
    cursor.execute(_NAMED, values)
    cursor.execute("ANALYZE named")
    cursor.execute(_COUNT)
    cursor.execute(_MASKED)
    cursor.execute("DROP TABLE changed, named")

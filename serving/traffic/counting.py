"""Counts the hours in which something changed: turns that came, feedback and updates of earlier ones; and the days of
these hours from their hours (`serving.traffic.days`). What people of the house asked in the playground is no traffic.

An hour is always counted whole, from its turns, and put in place of what was there: counting twice changes nothing, and
a crash in between is made up for by the next minute.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from capture.late import TurnUpdate
from capture.models import PLAYGROUND_TAG, Feedback, Turn
from serving.traffic.days import count_days
from serving.traffic.latency import EDGES
from serving.traffic.models import OTHER_MODELS, TrafficHour, TrafficMark

OVERLAP = timedelta(minutes=15)
"""A row's time is taken before its transaction ends: what ended late may lie behind the mark."""
REBUILT = timedelta(days=35)
"""What is counted anew each day: erasures and re-scrubs leave no time behind."""
MOST_NAMES = 50
"""Of models with adapters in one hour of an assistant; the rest of its turns is counted under `OTHER_MODELS`."""
_LOCK = 0x54524146

_TURN, _FEEDBACK, _UPDATE = (model._meta.db_table for model in (Turn, Feedback, TurnUpdate))
_TABLE = TrafficHour._meta.db_table

_TOUCHED = f"""
CREATE TEMPORARY TABLE touched ON COMMIT DROP AS
SELECT DISTINCT assistant_id, date_trunc('hour', asked_at, 'UTC') AS hour FROM {_TURN} WHERE created_at >= %(since)s
UNION
SELECT DISTINCT t.assistant_id, date_trunc('hour', t.asked_at, 'UTC')
FROM {_FEEDBACK} f JOIN {_TURN} t ON t.id = f.turn_id WHERE f.received_at >= %(since)s
UNION
SELECT DISTINCT t.assistant_id, date_trunc('hour', t.asked_at, 'UTC')
FROM {_UPDATE} u JOIN {_TURN} t ON t.id = u.turn_id WHERE u.received_at >= %(since)s
"""  # noqa: S608

_EVERYTHING = f"""
CREATE TEMPORARY TABLE touched ON COMMIT DROP AS
SELECT DISTINCT assistant_id, date_trunc('hour', asked_at, 'UTC') AS hour FROM {_TURN} WHERE asked_at >= %(since)s
UNION
SELECT DISTINCT assistant_id, hour FROM {_TABLE} WHERE hour >= date_trunc('hour', %(since)s::timestamptz, 'UTC')
"""  # noqa: S608

# `Turn.objects.asked_by_users()` in SQL. Hours with nothing else are still touched, so that what an earlier version
# counted there goes.
_BY_USERS = "AND NOT (t.tags @> ARRAY[%(playground)s]::varchar[] AND t.api_key_id IS NULL)"
_BINS = ", ".join(
    f"count(*) FILTER (WHERE bin = {place})::int"  # bins are numbers of ours
    for place in range(len(EDGES) + 1)
)

# A frontend may post another model name with every turn. The busiest names of an hour keep rows of their own.
_NAMES = f"""
CREATE TEMPORARY TABLE named ON COMMIT DROP AS
SELECT assistant_id, hour, model, adapter FROM (
    SELECT touched.assistant_id, touched.hour, t.model, t.adapter,
           row_number() OVER (PARTITION BY touched.assistant_id, touched.hour
                              ORDER BY count(*) DESC, t.model, t.adapter) AS place
    FROM touched JOIN {_TURN} t ON t.assistant_id = touched.assistant_id
         AND t.asked_at >= touched.hour AND t.asked_at < touched.hour + interval '1 hour' {_BY_USERS}
    GROUP BY touched.assistant_id, touched.hour, t.model, t.adapter
) ranked WHERE place <= %(most)s
"""  # noqa: S608
_NAMED = """LEFT JOIN named ON named.assistant_id = touched.assistant_id AND named.hour = touched.hour
         AND named.model = t.model AND named.adapter = t.adapter"""
_MODEL = "CASE WHEN named.hour IS NULL THEN %(other)s ELSE t.model END"
_ADAPTER = "CASE WHEN named.hour IS NULL THEN '' ELSE t.adapter END"

# One pass over the turns of each hour by their index (assistant, asked_at); what hangs on a turn is looked up by key.
_COUNT = f"""
INSERT INTO {_TABLE} (assistant_id, hour, model, adapter, turns, declined, up, down, escalated, prompt_tokens,
                      completion_tokens, latencies, masked)
SELECT one.assistant_id, one.hour, one.model, one.adapter, count(*), count(*) FILTER (WHERE one.declined),
       count(*) FILTER (WHERE one.up), count(*) FILTER (WHERE one.down), count(*) FILTER (WHERE one.escalated),
       coalesce(sum(one.prompt_tokens), 0), coalesce(sum(one.completion_tokens), 0), ARRAY[{_BINS}], '{{}}'
FROM (
    SELECT touched.assistant_id, touched.hour, {_MODEL} AS model, {_ADAPTER} AS adapter, t.declined, t.prompt_tokens,
           t.completion_tokens, width_bucket(t.latency_ms, %(edges)s::int[]) AS bin, said.up, said.down,
           said.escalated OR t.outcome = 'escalated' AS escalated
    FROM touched JOIN {_TURN} t ON t.assistant_id = touched.assistant_id
         AND t.asked_at >= touched.hour AND t.asked_at < touched.hour + interval '1 hour' {_BY_USERS}
    {_NAMED}
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(f.kind = 'thumb' AND f.value > 0), false) AS up,
               coalesce(bool_or(f.kind = 'thumb' AND f.value < 0), false) AS down,
               coalesce(bool_or(f.kind = 'escalation'), false) AS escalated
        FROM {_FEEDBACK} f WHERE f.turn_id = t.id
    ) said
) one
GROUP BY one.assistant_id, one.hour, one.model, one.adapter
"""  # noqa: S608

_MASKED = f"""
UPDATE {_TABLE} SET masked = found.masked FROM (
    SELECT assistant_id, hour, model, adapter, jsonb_object_agg(type, n) AS masked FROM (
        SELECT touched.assistant_id, touched.hour, {_MODEL} AS model, {_ADAPTER} AS adapter,
               mask.value ->> 'type' AS type, count(*) AS n
        FROM touched JOIN {_TURN} t ON t.assistant_id = touched.assistant_id
             AND t.asked_at >= touched.hour AND t.asked_at < touched.hour + interval '1 hour' {_BY_USERS}
        {_NAMED}
        CROSS JOIN LATERAL jsonb_array_elements(t.pii) AS mask WHERE mask.value ->> 'type' IS NOT NULL
        GROUP BY 1, 2, 3, 4, 5
    ) each GROUP BY 1, 2, 3, 4
) found
WHERE {_TABLE}.assistant_id = found.assistant_id AND {_TABLE}.hour = found.hour
      AND {_TABLE}.model = found.model AND {_TABLE}.adapter = found.adapter
"""  # noqa: S608


def count(*, now: datetime | None = None) -> int:
    """Counts what changed since the last time, and once a day the last weeks anew. Returns the hours counted; 0 also
    when another process is at it."""
    now = now or timezone.now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return 0
        mark, _ = TrafficMark.objects.get_or_create(pk=1)
        whole = mark.rebuilt_at is None or now - mark.rebuilt_at > timedelta(days=1)
        first = mark.counted_until is None
        if whole:
            since = datetime.min.replace(year=1970, tzinfo=now.tzinfo) if first else now - REBUILT
            cursor.execute(_EVERYTHING, {"since": since})
        else:
            assert mark.counted_until is not None
            cursor.execute(_TOUCHED, {"since": mark.counted_until - OVERLAP})
        hours = _count_touched(cursor)
        zone = timezone.get_default_timezone_name()
        count_days(cursor, zone=zone, every=mark.zone != zone, most=MOST_NAMES)
        cursor.execute("DROP TABLE touched")
        mark.zone = zone
        mark.counted_until = now
        mark.rebuilt_at = now if whole else mark.rebuilt_at
        mark.save()
    return hours


def _count_touched(cursor: Any) -> int:
    run = cursor.execute
    run("SELECT count(*) FROM touched")
    (hours,) = cursor.fetchone()
    run(f"DELETE FROM {_TABLE} USING touched WHERE {_TABLE}.assistant_id = touched.assistant_id "  # noqa: S608
        f"AND {_TABLE}.hour = touched.hour")  # fmt: skip
    run("ANALYZE touched")
    run(_NAMES, {"most": MOST_NAMES, "playground": PLAYGROUND_TAG})
    run("ANALYZE named")
    run(_COUNT, {"edges": list(EDGES), "other": OTHER_MODELS, "playground": PLAYGROUND_TAG})
    run(_MASKED, {"other": OTHER_MODELS, "playground": PLAYGROUND_TAG})
    run("DROP TABLE named")
    return int(hours)

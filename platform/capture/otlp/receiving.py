"""Spans wait, encrypted, until their trace is whole. Insert only: requests never wait for each other's rows."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
from django.conf import settings
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from assistants.errors import ApiError
from assistants.models import ApiKey, Assistant
from assistants.vault import encrypt_all, keyed_hash
from capture.imports.traces import MAX_PIECES
from capture.models import Receipt, WaitingSpans
from capture.otlp.decoding import Decoded
from capture.otlp.joining import scores_alone
from capture.otlp.spans import Span
from capture.sealing import packed_all

MAX_TRACE_BYTES = 4 * 1024 * 1024
"""Of one trace while it waits, unpacked: joining it takes that much."""
TOO_LARGE = f"of a trace with more than {MAX_PIECES:,} spans or {MAX_TRACE_BYTES // 2**20} MB"
LATE = "of traces that were taken before changed nothing"
RETRY_SECONDS = 10
_LOOK_SECONDS = 1.0
_NUDGE_SECONDS = 5.0


@dataclass(frozen=True)
class Received:
    """``rejected`` of the spans were not taken; ``message`` says why, or warns."""

    rejected: int
    message: str


@dataclass
class _Load:
    """What of an assistant waits, as it was last looked at, with what this process has added since."""

    at: float
    spans: int
    size: int


_loads: dict[int, _Load] = {}
_nudged: list[float] = []
_lock = threading.Lock()


def forget_loads() -> None:
    """Looks again at the next request."""
    with _lock:
        _loads.clear()
        _nudged.clear()


def check_room(assistant: Assistant) -> None:
    """The bounds are looked at once a second, so that processes together may pass them by what comes in a second.

    Raises:
        assistants.errors.ApiError: 503 with Retry-After, as much waits as may.
    """
    load = _look(assistant)
    if load.spans >= settings.RATCHET_TRACE_MAX_SPANS or load.size >= settings.RATCHET_TRACE_MAX_BYTES:
        raise ApiError(
            503,
            detail="Too many spans of this assistant wait for the rest of their traces. Try again later.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )


def receive_spans(*, assistant: Assistant, api_key: ApiKey | None, decoded: Decoded) -> Received:
    """Takes spans in; what is not rejected is durable on return. The same spans once more change nothing."""
    rejected = Counter(decoded.rejected)
    traces: dict[str, list[Span]] = {}
    for span in decoded.spans:
        traces.setdefault(span["trace"], []).append(span)
    rows, late = _rows(assistant, api_key, traces, rejected)
    _insert(rows)
    with _lock:
        load = _loads.get(assistant.pk)
        if load is not None:
            load.spans += sum(row.spans for row in rows)
            load.size += sum(row.size for row in rows)
    if rows:
        _nudge(assistant)
    reasons = [f"{count} spans {reason}" for reason, count in sorted(rejected.items())]
    return Received(rejected.total(), "; ".join(reasons + ([f"{late} spans {LATE}"] if late else [])))


def _rows(
    assistant: Assistant, key: ApiKey | None, traces: Mapping[str, list[Span]], rejected: Counter[str]
) -> tuple[list[WaitingSpans], int]:
    """Rows to write, and the number of spans that came too late, or once more. Counts what is too much."""
    taken = set(Receipt.objects.filter(assistant=assistant, client_id__in=traces).values_list("client_id", flat=True))
    waiting = {
        trace: (spans, size)
        for trace, spans, size in WaitingSpans.objects.filter(assistant=assistant, trace__in=traces)
        .order_by()
        .values_list("trace")
        .annotate(Sum("spans"), Sum("size"))
    }
    now = timezone.now()
    kept: list[tuple[str, list[Span], bytes]] = []
    late = 0
    for trace, given in traces.items():
        spans = given
        if trace in taken:
            spans = [left for span in given if (left := scores_alone(span))]
            late += len(given) - len(spans)
        if not spans:
            continue
        # Half a surrogate pair waits as it came; it is cleaned where every text is.
        content = json.dumps(spans, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        have_spans, have_bytes = waiting.get(trace, (0, 0))
        if have_spans + len(spans) > MAX_PIECES or have_bytes + len(content) > MAX_TRACE_BYTES:
            rejected[TOO_LARGE] += len(spans)
            continue
        kept.append((trace, spans, content))
    payloads = encrypt_all(packed_all([content for _, _, content in kept]))
    rows = [
        WaitingSpans(
            assistant=assistant,
            api_key=key,
            trace=trace,
            digest=keyed_hash("spans", content).hex(),
            payload=payload,
            size=len(content),
            spans=len(spans),
            has_root=trace in taken or any("parent" not in span for span in spans),
            received_at=now,
        )
        for (trace, spans, content), payload in zip(kept, payloads, strict=True)
    ]
    return rows, late


# In order of the unique index, so that two requests with the same rows wait for each other in the same order.
_INSERT = f"""
INSERT INTO {WaitingSpans._meta.db_table}
    (assistant_id, api_key_id, trace, digest, payload, size, spans, has_root, error, received_at)
SELECT %(assistant)s::bigint, %(key)s::bigint, trace, digest, payload, size, spans, has_root, '', %(now)s::timestamptz
FROM unnest(%(traces)s::text[], %(digests)s::text[], %(payloads)b::bytea[], %(sizes)s::int[], %(spans)s::int[],
            %(roots)s::bool[]) AS t (trace, digest, payload, size, spans, has_root)
ORDER BY trace, digest
ON CONFLICT (assistant_id, trace, digest) DO NOTHING
"""  # noqa: S608


def _insert(rows: Iterable[WaitingSpans]) -> None:
    found = list(rows)
    if not found:
        return
    connection.ensure_connection()
    # Payloads go to the server as bytes (%b): Django's cursor, and %s in an array, would write each of them as hex.
    with psycopg.Cursor(connection.connection) as cursor, connection.wrap_database_errors:
        cursor.execute(
            _INSERT,
            {
                "assistant": found[0].assistant_id,
                "key": found[0].api_key_id,
                "traces": [row.trace for row in found],
                "digests": [row.digest for row in found],
                "payloads": [row.payload for row in found],
                "sizes": [row.size for row in found],
                "spans": [row.spans for row in found],
                "roots": [row.has_root for row in found],
                "now": found[0].received_at,
            },
            binary=True,
        )


def _look(assistant: Assistant) -> _Load:
    with _lock:
        load = _loads.get(assistant.pk)
        if load is not None and time.monotonic() - load.at < _LOOK_SECONDS:
            return load
    waiting = WaitingSpans.objects.filter(assistant=assistant).aggregate(n=Sum("spans"), size=Sum("size"))
    load = _Load(time.monotonic(), waiting["n"] or 0, waiting["size"] or 0)
    with _lock:
        _loads[assistant.pk] = load
    return load


def _nudge(assistant: Assistant) -> None:
    """Queues the closing job when a trace is due, at most every few seconds; the schedule makes up for the rest."""
    with _lock:
        if _nudged and time.monotonic() - _nudged[-1] < _NUDGE_SECONDS:
            return
        _nudged[:] = [time.monotonic()]
    from capture import jobs

    jobs.ensure_close_schedule()
    if WaitingSpans.objects.filter(assistant=assistant).due(timezone.now()).exists():
        jobs.enqueue_close()

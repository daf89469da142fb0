"""Turns out, in constant memory: as JSON lines or Parquet, for the API, the pages and the command.

Ids come in large pages, contents in small batches, newest first. A cursor of the database would hold one snapshot and
one connection for as long as the slowest reader takes; this holds neither between batches, and a turn that is erased
while the export runs is not in it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder

from assistants.errors import ApiError
from assistants.models import ApiKey, Assistant
from assistants.services import audit
from capture import export_guard
from capture.export_guard import ExportBlocked
from capture.models import Turn, TurnQuerySet
from capture.parquet import ParquetMissing, parquet_pieces
from capture.reading import readable, turn_rows

Format = Literal["jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "parquet")
CONTENT_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
MAX_TURNS = 10_000_000
BATCH = 100
"""Turns whose contents are in memory at once."""
ID_PAGE = 20_000
"""Ids fetched at once: a search by words sorts all it finds for each page, so pages are large."""
AT_ONCE = 4
"""Exports that one web process runs at the same time: each keeps a thread and, half of the time, a connection busy."""

_running = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class Export:
    """What leaves, and for whom.

    ``ordered``: ids in the order wanted, where it is not newest first. ``told``: what the audit trail says of the
    filters.
    """

    turns: TurnQuerySet
    format: Format
    actor: User | None = None
    api_key: ApiKey | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    ordered: Sequence[UUID] | None = None


def open_export(export: Export) -> Iterator[bytes]:
    """The bytes of an export, with its first piece made already: what can be refused is refused here.

    Raises:
        assistants.errors.ApiError: 409 a guard objects, 429 too many exports at once, 501 no Parquet here.
    """
    if not _running.acquire(blocking=False):
        raise ApiError(
            429, detail=f"{AT_ONCE} exports are running; wait for one to end.", headers={"Retry-After": "30"}
        )
    pieces = _held(export)
    try:
        first = next(pieces, b"")
    except ExportBlocked as blocked:
        raise ApiError(409, "Export blocked", str(blocked)) from blocked
    except ParquetMissing as missing:
        raise ApiError(
            501, detail="Parquet needs pyarrow on the server: pip install 'ratchet[parquet]'. JSON lines work without."
        ) from missing
    return _chained(first, pieces)


def pieces_of(export: Export) -> Iterator[bytes]:
    """The bytes of an export. Who started it, with which filters, is noted before the first of them leaves; how many
    turns left, and whether it came to its end, when it stops, however it stops.

    Raises:
        ExportBlocked: a guard objects; nothing of the batch has left.
        ParquetMissing: pyarrow is not installed.
    """
    counts = dict.fromkeys(_assistants(export), 0)
    batches = _checked(export, counts)
    made = parquet_pieces(batches) if export.format == "parquet" else _lines(batches)
    _note(export, "turns.export_started", counts)
    ended = "broken off"
    try:
        yield from made
        ended = "complete"
    except ExportBlocked as blocked:
        ended = f"blocked: {blocked}"[:300]
        raise
    finally:
        for assistant, count in counts.items():
            _note(export, "turns.exported", [assistant], target=f"{count} turns", count=count, ended=ended)


def _held(export: Export) -> Iterator[bytes]:
    """With the place among the running exports, given back however it ends."""
    try:
        yield from pieces_of(export)
    finally:
        _running.release()


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield first
        yield from rest
    finally:
        rest.close()  # type: ignore[attr-defined]


def _lines(batches: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[bytes]:
    encoder = DjangoJSONEncoder(ensure_ascii=False)
    for batch in batches:
        yield "".join(encoder.encode(record) + "\n" for record in batch).encode()


def _checked(export: Export, counts: dict[Assistant, int]) -> Iterator[Sequence[dict[str, Any]]]:
    """Records in batches, each seen by the guards of its assistant before it goes on."""
    for turns in _batches(export):
        records: list[dict[str, Any]] = []
        for _, rows in groupby(turns, key=lambda turn: turn.assistant_id):
            own = list(rows)
            assistant = own[0].assistant
            part = turn_rows(own)
            export_guard.check(assistant, part)
            counts[assistant] = counts.get(assistant, 0) + len(part)
            records += part
        yield records


def _batches(export: Export) -> Iterator[list[Turn]]:
    for ids in _id_pages(export):
        for start in range(0, len(ids), BATCH):
            wanted = ids[start : start + BATCH]
            found = {t.pk: t for t in readable(Turn.objects.filter(pk__in=wanted)).select_related("assistant")}
            if found:
                yield [found[pk] for pk in wanted if pk in found]


def _id_pages(export: Export) -> Iterator[Sequence[UUID]]:
    if export.ordered is not None:
        yield export.ordered
        return
    left = MAX_TURNS if export.limit is None else export.limit
    after: tuple[datetime, UUID] | None = None
    while left > 0:
        turns = export.turns if after is None else export.turns.older_than(*after)
        size = min(left, ID_PAGE)
        rows = list(turns.newest_first().values_list("asked_at", "pk")[:size])
        if rows:
            yield [pk for _, pk in rows]
        if len(rows) < size:
            return
        after, left = rows[-1], left - size


def _assistants(export: Export) -> list[Assistant]:
    if export.api_key is not None:
        return [export.api_key.assistant]
    return list(Assistant.objects.filter(pk__in=export.turns.order_by().values("assistant").distinct()))


def _note(export: Export, action: str, assistants: Iterable[Assistant], *, target: str = "", **more: Any) -> None:
    details = {"format": export.format, **export.told, **more}
    if export.api_key is not None:
        details["key"] = str(export.api_key)
    for assistant in assistants:
        audit(assistant=assistant, actor=export.actor, action=action, target=target, details=details)

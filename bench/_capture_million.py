"""Many stored turns for the capture bench, written by COPY: receipts, conversations, passages, turns, retrievals."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

PASSAGES = 20_000
PER_TURN = 5
PER_CONVERSATION = 4
CLUSTERS = 2_000
DIMENSION = 384
_SINCE = datetime(2026, 1, 1, tzinfo=UTC)
_LATER = ("capture_turn", "capture_retrieval")
"""Tables whose indexes are built behind the rows: kept up row by row, words and vectors alone would take hours."""

Say = Callable[[str], None]


def fill(assistant_id: int, count: int, say: Say) -> None:
    """Adds turns until the assistant has ``count`` of them. Names continue where the last fill ended."""
    from django.db import connection

    connection.ensure_connection()
    raw = connection.connection
    register_vector(raw)
    (have,) = raw.execute("SELECT count(*) FROM capture_turn WHERE assistant_id = %s", [assistant_id]).fetchone()
    if have >= count:
        return
    started = time.monotonic()
    dropped = _drop_indexes(raw) if count - have > 2_000 else []
    rows = Rows(assistant_id, have, count)
    with _Constants(raw):
        for table, columns, source in rows.tables(raw):
            _copy(raw, table, columns, source)
            say(f"  {table}: {time.monotonic() - started:.0f} s")
    raw.execute("SET maintenance_work_mem = '2GB'")
    for name, definition in dropped:
        raw.execute(definition)
        say(f"  {name}: {time.monotonic() - started:.0f} s")
    for table in ("receipt", "conversation", "passage", "turn", "retrieval"):
        raw.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(f"capture_{table}")))
    raw.execute("VACUUM (FREEZE) capture_turn")


class Rows:
    """What differs from row to row; the rest are constants of `_Constants`."""

    def __init__(self, assistant_id: int, first: int, last: int) -> None:
        self.assistant_id, self.numbers = assistant_id, range(first, last)
        self.random = random.Random(first)
        self.words = vocabulary()
        # A word's frequency falls with its rank, as in any language; the commonest are in every other text.
        self.weights = list(np.cumsum([1 / rank for rank in range(1, len(self.words) + 1)]))
        self.vectors = np.random.default_rng(first)
        self.centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIMENSION)).astype(np.float32)

    def tables(self, raw: Any) -> Iterator[tuple[str, Sequence[str], Iterable[Sequence[Any]]]]:
        """(table, columns, rows) in the order in which they may be written."""
        own = self.assistant_id
        yield "capture_receipt", ("assistant_id", "client_id", "payload_digest"), (
            (own, f"stored-{n}", hashlib.sha256(b"%d" % n).hexdigest()) for n in self.numbers
        )  # fmt: skip
        if not self.numbers.start:
            yield "capture_passage", ("assistant_id", "digest", "title", "text"), (
                (own, hashlib.sha256(b"p%d" % n).hexdigest(), self.text(5), self.text(280)) for n in range(PASSAGES)
            )  # fmt: skip
        starts = range(-(-self.numbers.start // PER_CONVERSATION), -(-self.numbers.stop // PER_CONVERSATION))
        yield "capture_conversation", ("assistant_id", "external_id"), ((own, f"talk-{n}") for n in starts)
        talks = self._keys(raw, "capture_conversation")
        yield "capture_turn", _TURN_COLUMNS, self._turns(talks)
        passages = self._keys(raw, "capture_passage")
        yield "capture_retrieval", ("turn_id", "passage_id", "rank", "score"), (
            (turn_key(n), passages[(n * 7919 + rank * 104_729) % len(passages)], rank, 1 - rank / 10)
            for n in self.numbers
            for rank in range(1, PER_TURN + 1)
        )  # fmt: skip

    def text(self, words: int) -> str:
        return " ".join(self.random.choices(self.words, cum_weights=self.weights, k=words))

    def _keys(self, raw: Any, table: str) -> list[int]:
        query = sql.SQL("SELECT id FROM {} WHERE assistant_id = %s ORDER BY id").format(sql.Identifier(table))
        return [key for (key,) in raw.execute(query, [self.assistant_id])]

    def _turns(self, talks: list[int]) -> Iterator[Sequence[Any]]:
        for n in self.numbers:
            yield (
                turn_key(n), self.assistant_id, talks[n // PER_CONVERSATION], f"stored-{n}", self.text(14),
                self.text(45), _SINCE + timedelta(seconds=n * 20), f"model-{n % 7}", "" if n % 5 else "adapter-3",
                n % 11 == 0, [f"tag-{n % 40}"], HalfVector(self._vector(n)),
            )  # fmt: skip

    def _vector(self, n: int) -> Any:
        vector = self.centres[n % CLUSTERS] + 0.7 * self.vectors.standard_normal(DIMENSION, dtype=np.float32)
        return vector / np.linalg.norm(vector)


_TURN_COLUMNS = (
    "id", "assistant_id", "conversation_id", "client_id", "question", "response", "asked_at", "model", "adapter",
    "declined", "tags", "embedding",
)  # fmt: skip


def turn_key(number: int) -> uuid.UUID:
    return uuid.UUID(bytes=hashlib.md5(b"turn%d" % number, usedforsecurity=False).digest(), version=4)


def vocabulary() -> list[str]:
    maker = random.Random(5)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(maker.choices(letters, k=maker.randint(3, 10))) for _ in range(20_000)]


class _Constants:
    """While it lasts, columns without a default in the database have the model's: rows are then short to write."""

    def __init__(self, raw: Any) -> None:
        from capture.models import Conversation, Passage, Receipt, Retrieval, Turn

        self.raw = raw
        self.models = (Receipt, Passage, Conversation, Turn, Retrieval)

    def _each(self) -> Iterator[tuple[str, str, Any]]:
        from django.db.models import JSONField

        for model in self.models:
            for field in model._meta.concrete_fields:
                if field.primary_key or field.generated or field.is_relation or field.null:
                    continue
                value = datetime.now(UTC) if getattr(field, "auto_now_add", False) else field.get_default()
                wrapped = Jsonb(value) if isinstance(field, JSONField) else value
                yield model._meta.db_table, field.column, "" if wrapped is None else wrapped

    def __enter__(self) -> None:
        for table, column, value in self._each():
            if not (value == "" and column in ("asked_at", "rank")):
                self._alter(table, column, sql.SQL("SET DEFAULT {}").format(sql.Literal(value)))

    def __exit__(self, *error: object) -> None:
        for table, column, _ in self._each():
            self._alter(table, column, sql.SQL("DROP DEFAULT"))

    def _alter(self, table: str, column: str, what: Any) -> None:
        alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} ")
        self.raw.execute(alter.format(sql.Identifier(table), sql.Identifier(column)) + what)


def _copy(raw: Any, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with raw.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)) as copy:
        for row in rows:
            copy.write_row(row)


def _drop_indexes(raw: Any) -> list[tuple[str, str]]:
    """(name, definition) of those that no constraint needs."""
    query = """SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)
        AND indexname NOT IN (SELECT conname FROM pg_constraint)"""
    found = [(str(name), str(definition)) for name, definition in raw.execute(query, [list(_LATER)])]
    for name, _ in found:
        raw.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return found

"""Statements that PostgreSQL plans once per connection: the few that every request of a program begins or ends with,
and those that stand between a question and its answer.

Django writes each statement anew, values and all, and switches psycopg's prepared statements off; then ``prepare=True``
is left out without a word. For a search, writing and planning was most of its time.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.adapt import Dumper
from psycopg.pq import Format

_WHEN_ASKED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Wire:
    """A value as its type's binary input reads it. The statement says the type, with a cast."""

    octets: bytes


_OID_OF_BYTEA, _OID_OF_TEXT = 17, 25
_LENGTH = struct.Struct("!i").pack


def wire_texts(values: Sequence[str]) -> Wire:
    """A ``text[]``. What psycopg does for each value of a list, calls of Python and a copy, is most of what a batch's
    parameters cost."""
    return _array(_OID_OF_TEXT, [value.encode() for value in values])


def wire_bytes(values: Sequence[bytes]) -> Wire:
    """A ``bytea[]``."""
    return _array(_OID_OF_BYTEA, values)


def _array(oid: int, values: Sequence[bytes]) -> Wire:
    """In one dimension from 1, without NULL; each value behind its length."""
    if not values:
        return Wire(struct.pack("!iii", 0, 0, oid))
    parts = [struct.pack("!iiiii", 1, 0, oid, len(values), 1)]
    for value in values:
        parts += (_LENGTH(len(value)), value)
    return Wire(b"".join(parts))


class _WireDumper(Dumper):
    format = Format.BINARY
    oid = 0  # the cast decides: no look into the catalogue for the number of an extension's type

    def dump(self, obj: Wire) -> bytes:
        return obj.octets


_taught: WeakSet[psycopg.Connection[Any]] = WeakSet()
"""Connections that know how a Wire is sent."""


@contextmanager
def preparing(raw: psycopg.Connection[Any]) -> Iterator[None]:
    """What asks to be prepared is, and nothing else. Only meanwhile: as long as it may prepare anything, psycopg keeps
    the texts of the last hundred statements to count them, and in Django's stand all values, megabytes of them."""
    raw.prepare_threshold = _WHEN_ASKED
    try:
        yield
    finally:
        raw.prepare_threshold = None


def run_prepared(
    statement: str, values: Mapping[str, Any], *, binary: bool = True, plan_once: bool = True
) -> list[tuple[Any, ...]]:
    """The rows that ``statement`` gives. Values are bound on the server; ``%(name)b`` sends bytes as they are, and long
    bytes come back as they are instead of as hexadecimal digits.

    Args:
        statement: each value with a cast where nothing else says its type.
        binary: of the results. Where Django's converters are to read them: False.
        plan_once: False where a table grows by what is run: a plan that was made while it was small reads all of it,
            and is kept until the table is analysed.

    Raises:
        django.db.Error: as its own cursors do.
    """
    own = connections[DEFAULT_DB_ALIAS]  # `connection` looks for it at each use: six times, as much as the statement
    own.close_if_health_check_failed()  # as Django's cursor begins
    own.ensure_connection()
    begun = time.monotonic()
    try:
        raw: psycopg.Connection[Any] = own.connection
        if raw not in _taught:  # each time, it would cost as much as a short statement
            raw.adapters.register_dumper(Wire, _WireDumper)
            _taught.add(raw)
        with preparing(raw), psycopg.Cursor(raw) as cursor, own.wrap_database_errors:
            cursor.execute(statement, values, binary=binary, prepare=plan_once)
            return cursor.fetchall()
    finally:
        if own.queries_logged:  # as of any other statement
            own.queries_log.append({"sql": statement, "time": f"{time.monotonic() - begun:.3f}"})

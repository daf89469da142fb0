"""The elements of a JSON array of any size, one at a time, as bytes: the array itself is never in memory. It may stand
alone, or in an object beside a few small values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 1 << 20
_END = 1 << 16
"""Bytes that an object may hold behind its list."""
_OUTSIDE = re.compile(rb'["{}\[\],]')
_INSIDE = re.compile(rb'["\\]')
_OPEN, _CLOSE = b"{[", b"}]"
# A text that does not end counts to the end: looked for again at each of its quotes it would take quadratic time.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[{}\[\],]', re.DOTALL)


class TextBehind(Exception):
    """Something stands behind the end of the array, such as another one."""


def list_within(start: bytes, names: frozenset[bytes]) -> int | None:
    """Where the first list begins that an object holds under one of these names; None: not in these bytes."""
    depth, key = 0, b""
    for found in _TOKEN.finditer(start):
        mark = found.group()
        if mark[:1] == b'"':
            key = mark[1:-1]
            continue
        if mark == b"[" and depth == 1 and key in names:
            return found.start()
        depth += (mark in _OPEN) - (mark in _CLOSE)
        if depth == 0:
            return None
        key = b""
    return None


def elements(stream: BinaryIO, limit: int, *, before: bytes = b"") -> Iterator[bytes | None]:
    """Cuts at the commas between elements; what stands between them is not checked.

    ``before``: what was read of the object that holds the array; what stands behind must complete it, and be small.

    Yields:
        the bytes of an element, or None for one of more than ``limit`` bytes.

    Raises:
        EOFError: the stream ends inside of the array.
        TextBehind: the array ends before the stream does.
    """
    cutter = _Cutter(limit)
    while chunk := stream.read(_CHUNK):
        yield from cutter.feed(chunk)
        if cutter.done:
            rest = cutter.rest
            if before:
                _check_end(before, rest + stream.read(_END))
                return
            while not rest.strip():
                if not (rest := stream.read(_CHUNK)):
                    return
            raise TextBehind
    raise EOFError


def _check_end(before: bytes, rest: bytes) -> None:
    """Raises TextBehind also for another list of records, which would be passed over in silence."""
    try:
        whole = json.loads(before + b"[]" + rest)
    except (ValueError, RecursionError):
        raise TextBehind from None
    if any(isinstance(value, list) and any(isinstance(part, dict) for part in value) for value in whole.values()):
        raise TextBehind


class _Cutter:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.done = False
        self.rest = b""
        """When done: what stands behind the array in the chunk with its end."""
        self._depth = 0
        self._inside = False
        self._escaped = False
        self._parts: list[bytes] = []
        self._size = 0
        self._any = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        start = place = 0
        if self._escaped:  # the chunk before ended with a backslash
            self._escaped, place = False, 1
        while place < len(chunk) and not self.done:
            found = (_INSIDE if self._inside else _OUTSIDE).search(chunk, place)
            if found is None:
                break
            place = found.end()
            mark = found.group()
            if self._inside:
                if mark == b"\\":
                    self._escaped = place == len(chunk)
                    place += 1
                else:
                    self._inside = False
            elif mark == b'"':
                self._inside = True
            elif mark in _OPEN:
                self._depth += 1
                if self._depth == 1:
                    start = place
            else:
                self._depth -= mark in _CLOSE
                if self._depth == 0 or (self._depth == 1 and mark == b","):
                    yield from self._cut(chunk[start : place - 1], last=self._depth == 0)
                    start = place
                    self.done = self._depth == 0
        self.rest = chunk[place:]
        if not self.done and self._depth:
            self._keep(chunk[start:])

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self.limit:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _cut(self, part: bytes, *, last: bool) -> Iterator[bytes | None]:
        self._keep(part)
        whole = b"".join(self._parts) if self._size <= self.limit else None
        self._parts, self._size = [], 0
        if whole is None or whole.strip() or not last or self._any:
            self._any = True
            yield whole

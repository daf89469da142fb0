"""A synchronous source as an answer that is streamed.

Django would collect a synchronous iterator whole before it sends the first byte of it, so it is asked for one piece at
a time, in the request's own thread. Between pieces nothing is held: the connection goes back to the pool while the
client reads. When the client goes away the source is closed, and stops.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import StreamingHttpResponse


def streamed(pieces: Iterator[bytes], *, content_type: str, filename: str) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_Source(pieces), content_type=content_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


class _Source:
    """Django closes it with the response. The iterator alone would wait for Python's collector where an answer is
    broken off, and keep its place among the exports until then."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _asynchronous(self._pieces)

    def close(self) -> None:
        _close(self._pieces)


async def _asynchronous(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        while (piece := await sync_to_async(_next)(pieces)) is not None:
            yield piece
    finally:
        await sync_to_async(_close)(pieces)


def _next(pieces: Iterator[bytes]) -> bytes | None:
    try:
        return next(pieces, None)
    finally:
        _release()


def _close(pieces: Iterator[bytes]) -> None:
    try:
        pieces.close()  # type: ignore[attr-defined]
    finally:
        _release()


def _release() -> None:
    """As Django does after a request, but not inside of a transaction that somebody else began."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()

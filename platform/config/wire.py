"""The web process's HTTP, for whoever keeps a connection and sends nothing, or headers without end.

uvicorn waits for the head of a request as long as it takes and keeps whatever comes of it; it bounds only the pause
behind an answer. So a thousand silent connections stayed until the process had no file left to open, and the headers of
one filled its memory (docs/log.md). Bodies are the business of `config.receiving`, where one knows whose they are.
"""

from __future__ import annotations

import asyncio

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
"""Bytes of address and headers, beside the piece that came first (256 kB at most)."""


class PatientProtocol(HttpToolsProtocol):
    """For ``uvicorn --http``: a head that is not there after ``RATCHET_RECEIVE_TIMEOUT`` seconds, or is larger than
    `MAX_HEAD`, ends its connection."""

    _due: asyncio.TimerHandle | None = None
    _taken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        expected = self._due is not None
        super().data_received(data)
        if expected and self._due is not None:
            self._taken += len(data)
            if self._taken > MAX_HEAD:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._due is None:  # a further request on the same connection
            self._expect()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Behind a body in chunks more headers may come, of which nobody here reads any: uvicorn kept them all.
        if self._due is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._have()
        super().on_headers_complete()

    def _expect(self) -> None:
        self._taken = 0
        self._due = self.loop.call_later(settings.RATCHET_RECEIVE_TIMEOUT, self._give_up)

    def _have(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        # Without an answer: nothing was asked yet, and one to an earlier request may be on its way.
        self._due = None
        self.transport.close()

"""The web process's HTTP, for whoever keeps a connection and sends nothing, or headers without end, or would like
another protocol.

uvicorn waits for the head of a request as long as it takes and keeps whatever comes of it; it bounds only the pause
behind an answer. So a thousand silent connections stayed until the process had no file left to open, and the headers of
one filled its memory (docs/log.md). Bodies are the business of `config.receiving`, where one knows whose they are.

Nothing is spoken here but HTTP/1.1, and a server may go on with it whatever it was offered. Java's client offers HTTP/2
with every first request; the parser takes an offer for the end of HTTP and leaves the body lying.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 1024
"""Bytes of address and headers, beside the piece that came first (256 kB at most)."""
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Headers that say where a body ends."""


class SteadyParser:
    """httptools' parser, which stops at an upgrade, and one more for what comes behind it."""

    def __init__(self, protocol: PatientProtocol) -> None:
        self._protocol = protocol
        self._parser = self._fresh()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        left = memoryview(data)
        while True:
            try:
                self._parser.feed_data(left)
                return
            except httptools.HttpParserUpgrade as upgrade:
                left = left[upgrade.args[0] :]
            # The next parser is told where the body ends by a head of our own, so it alone knows how bodies are read.
            self._parser = self._fresh()
            self._parser.feed_data(self._protocol.head_of_body())

    def _fresh(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self._protocol)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return parser


class PatientProtocol(HttpToolsProtocol):
    """For ``uvicorn --http``: a head that is not there after ``RATCHET_RECEIVE_TIMEOUT`` seconds, or is larger than
    `MAX_HEAD`, ends its connection. A request to upgrade is a request like any other."""

    _due: asyncio.TimerHandle | None = None
    _taken = 0
    _again = False
    """A head is parsed that was not sent: see `head_of_body`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser: Any = SteadyParser(self)
        self._framing: list[bytes] = []

    def head_of_body(self) -> bytes:
        """Before the body of the request that was read last; what the parser says of it is not listened to."""
        self._again = True
        return b"".join([b"POST / HTTP/1.1\r\n", *self._framing, b"\r\n"])

    def _should_upgrade(self) -> bool:
        return False

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
        if self._again:
            return
        super().on_message_begin()
        self._framing = []
        if self._due is None:  # a further request on the same connection
            self._expect()

    def on_url(self, url: bytes) -> None:
        if not self._again:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Behind a body in chunks more headers may come, of which nobody here reads any: uvicorn kept them all.
        if self._due is None or self._again:
            return
        super().on_header(name, value)
        if name.lower() in FRAMING:
            self._framing.append(b"%s: %s\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        if self._again:
            self._again = False
            return
        self._have()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():  # else only the head is: its body follows
            super().on_message_complete()

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

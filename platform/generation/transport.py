"""HTTP to the engine process, over a Unix socket or loopback: what is written and read, with httptools' parser.

Between a question and its answer stand two such calls. On httpcore, a general client, they took .8 ms (blocking) and
1.2 (asynchronous) of the web process' time where this takes .2: the other half, the engine, is known and ours, and
cookies, redirects, proxies and protocols of strangers are of no use.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

from generation.http1 import OK, Incoming, NoReply, Reply, Stale

CONNECT_SECONDS = 3.0
MAX_CONNECTIONS = 100
"""Of one event loop; who comes then waits for one."""
MAX_KEPT = 20
"""Idle connections."""
KEPT_SECONDS = 4.0
"""The engine closes what was idle for five."""
PIECE = 65_536


class _Address:
    """Where the engine listens: ``unix:/path/engine.sock`` or ``http(s)://host:port``."""

    def __init__(self, url: str) -> None:
        self.path = url.removeprefix("unix:") if url.startswith("unix:") else ""
        parts = urlsplit("http://engine" if self.path else url)
        self._known = parts.scheme in ("http", "https") and bool(parts.hostname)
        self.host, self.name = parts.hostname or "", parts.netloc.rpartition("@")[2]
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.before = parts.path.rstrip("/")
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None

    def connect(self) -> socket.socket:
        """Raises OSError."""
        if self.path:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.settimeout(CONNECT_SECONDS)
                link.connect(self.path)
            except BaseException:
                link.close()
                raise
            return link
        self._refuse_unknown()
        try:
            link = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        except UnicodeError as error:  # no name of a host
            raise OSError(str(error)) from error
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(link, server_hostname=self.host) if self.tls else link

    async def open(self) -> _Wire:
        """Raises OSError, TimeoutError among them."""
        loop = asyncio.get_running_loop()
        self._refuse_unknown()
        async with asyncio.timeout(CONNECT_SECONDS):
            try:
                if self.path:
                    _, wire = await loop.create_unix_connection(_Wire, self.path)
                else:
                    _, wire = await loop.create_connection(_Wire, self.host, self.port, ssl=self.tls)
            except UnicodeError as error:
                raise OSError(str(error)) from error
        return wire

    def _refuse_unknown(self) -> None:
        if not self._known:
            raise OSError("An engine's address is unix:PATH, http://HOST:PORT or https://HOST:PORT.")


class Coming:
    """An answer that is waited for by calling this, once. Dropped before that, it takes its connection with it, so that
    the engine sees that nobody waits."""

    def __init__(self, links: _Links, request: bytes, seconds: float) -> None:
        self._links, self._request, self._seconds = links, request, seconds
        self._link = links.take()
        self._kept = self._link is not None
        self._failed: OSError | None = None  # said when the answer is asked for
        self._send()

    def __call__(self) -> Reply:
        """Raises NoReply."""
        if self._failed is not None:
            late = self._link is not None and isinstance(self._failed, TimeoutError)
            self._drop()
            raise NoReply(late) from self._failed
        try:
            return self._read()
        except Stale as stale:
            if not self._kept:
                raise NoReply(late=False) from stale
        self._kept = False
        self._send()
        return self()

    def _send(self) -> None:
        try:
            if self._link is None:
                self._link = self._links.address.connect()
            self._link.settimeout(self._seconds)
        except OSError as error:
            self._failed = error
            return
        try:
            self._link.sendall(self._request)
        except TimeoutError as error:
            self._failed = error
        except OSError:
            pass  # the answer says what became of it, or its absence

    def _read(self) -> Reply:
        assert self._link is not None
        incoming = Incoming()
        try:
            while not incoming.ended:
                try:
                    data = self._link.recv(PIECE)
                except TimeoutError as error:
                    raise NoReply(late=True) from error
                except OSError:
                    data = b""
                incoming.feed(data)
        finally:
            if not (incoming.ended and incoming.reusable):
                self._drop()
        if self._link is not None:
            self._links.put(self._link)
            self._link = None
        return incoming.reply()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def __del__(self) -> None:
        self._drop()


class _Links:
    """Idle connections of blocking calls. They are not shared over a fork."""

    def __init__(self, address: _Address) -> None:
        self.address = address
        self._idle: list[tuple[float, int, socket.socket]] = []

    def take(self) -> socket.socket | None:
        """The one that was used last; those that are old or closed at the other end go."""
        while self._idle:
            try:
                since, pid, link = self._idle.pop()
            except IndexError:  # another thread was quicker
                return None
            if pid == os.getpid() and time.monotonic() - since < KEPT_SECONDS and not _readable(link):
                return link
            link.close()
        return None

    def put(self, link: socket.socket) -> None:
        with suppress(IndexError):  # another thread was quicker
            while self._idle and time.monotonic() - self._idle[0][0] > KEPT_SECONDS:
                self._idle.pop(0)[2].close()
        if len(self._idle) < MAX_KEPT:
            self._idle.append((time.monotonic(), os.getpid(), link))
        else:
            link.close()


def _readable(link: socket.socket) -> bool:
    """Whether there is something to read where nothing is asked: its end."""
    ready = select.poll()
    ready.register(link, select.POLLIN)
    return bool(ready.poll(0))


class _Wire(asyncio.Protocol):
    """One connection of an event loop. What comes is kept until it is read, so that it is seen when it comes unasked:
    `asyncio.StreamReader` does not tell."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._coming: asyncio.Future[None] | None = None
        self._over = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._wake()

    def eof_received(self) -> None:
        self._over = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._wake()

    def _wake(self) -> None:
        if self._coming is not None and not self._coming.done():
            self._coming.set_result(None)

    @property
    def idle(self) -> bool:
        """Whether it is open, and nothing lies in it."""
        return not (self._over or self._pieces or self.transport.is_closing())

    async def read(self) -> bytes:
        """The next piece; empty behind the last."""
        while not (self._pieces or self._over):
            self._coming = asyncio.get_running_loop().create_future()
            await self._coming
        return self._pieces.popleft() if self._pieces else b""


class _Streams:
    """Connections of one event loop: they belong to the loop that opened them."""

    def __init__(self, address: _Address) -> None:
        self.address = address
        self.places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: deque[tuple[float, _Wire]] = deque()

    def take(self) -> _Wire | None:
        while self._idle:
            since, wire = self._idle.pop()
            if time.monotonic() - since < KEPT_SECONDS and wire.idle:
                return wire
            wire.transport.abort()
        return None

    def put(self, wire: _Wire) -> None:
        while self._idle and time.monotonic() - self._idle[0][0] > KEPT_SECONDS:
            self._idle.popleft()[1].transport.abort()
        if len(self._idle) < MAX_KEPT and wire.idle:
            self._idle.append((time.monotonic(), wire))
        else:
            wire.transport.abort()


class _Exchange:
    """One request and its answer, as `Coming`. Left before its end, it closes the connection."""

    def __init__(self, streams: _Streams, request: bytes, seconds: float) -> None:
        self._streams, self._request, self._seconds = streams, request, seconds
        self._wire: _Wire | None = None
        self._kept = False
        self._incoming = Incoming()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._seconds):
                await self._streams.places.acquire()
        except TimeoutError as error:
            raise NoReply(late=True) from error
        self._wire = self._streams.take()
        self._kept = self._wire is not None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._wire is not None and self._incoming.ended and self._incoming.reusable:
            self._streams.put(self._wire)
        else:
            self._drop()
        self._streams.places.release()

    async def more(self) -> Incoming:
        """What there is of the answer, once more of it has come."""
        try:
            if self._wire is None or not self._incoming.began:
                await self._send()
            self._incoming.feed(await self._read())
        except Stale as stale:
            if not self._kept:
                raise NoReply(late=False) from stale
            self._drop()
            self._kept = False
            return await self.more()
        return self._incoming

    async def _send(self) -> None:
        if self._wire is None:
            try:
                self._wire = await self._streams.address.open()
            except OSError as error:
                raise NoReply(late=False) from error
        self._wire.transport.write(self._request)  # as much as it is, it waits in memory while the engine reads

    async def _read(self) -> bytes:
        assert self._wire is not None
        try:
            async with asyncio.timeout(self._seconds):
                return await self._wire.read()
        except TimeoutError as error:
            raise NoReply(late=True) from error

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.transport.abort()


class Transport:
    """One instance serves many threads and event loops, also after a fork. Everything raises `NoReply`."""

    def __init__(self, url: str, token: str = "") -> None:
        """``url``: ``unix:/path/engine.sock`` or ``http://host:port``."""
        self._address = _Address(url)
        guard = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = f"Host: {self._address.name}\r\n{guard}Content-Type: application/json\r\n"
        self._links = _Links(self._address)
        self._streams: dict[asyncio.AbstractEventLoop, _Streams] = {}

    def send(self, method: str, path: str, body: Mapping[str, Any] | None, *, seconds: float) -> Coming:
        """Sends the request; raises nothing. ``seconds``: how long the answer may keep still."""
        return Coming(self._links, self._written(method, path, body), seconds)

    async def acall(self, method: str, path: str, body: Mapping[str, Any] | None, *, seconds: float) -> Reply:
        """As `send`, and waits. Cancelling it closes the connection, so that the engine sees that nobody waits."""
        async with self._exchange(self._written(method, path, body), seconds) as exchange:
            while True:
                incoming = await exchange.more()
                if incoming.ended:
                    return incoming.reply()

    async def alines(
        self, path: str, body: Mapping[str, Any], *, seconds: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        """Lines of the answer to a POST as they come; instead of them a `Reply`, where the status is another than 200.
        Closing the generator closes the connection."""
        async with self._exchange(self._written("POST", path, body), seconds) as exchange:
            ended = False
            while not ended:
                incoming = await exchange.more()
                ended = incoming.ended
                if incoming.status == OK:
                    *lines, rest = bytes(incoming.body).split(b"\n")
                    incoming.body[:] = rest
                    for line in lines:
                        yield line
                elif ended:
                    yield incoming.reply()

    def _exchange(self, request: bytes, seconds: float) -> _Exchange:
        loop = asyncio.get_running_loop()
        if loop not in self._streams:
            # A loop stands in what it has opened, so none goes by itself.
            for ended in [other for other in self._streams if other.is_closed()]:
                del self._streams[ended]
            self._streams[loop] = _Streams(self._address)
        return _Exchange(self._streams[loop], request, seconds)

    def _written(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        asked = f"{method} {quote(self._address.before + path)} HTTP/1.1\r\n{self._head}"
        return f"{asked}Content-Length: {len(content)}\r\n\r\n".encode() + content

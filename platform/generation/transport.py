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
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httptools

_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CONNECT_SECONDS = 3.0
MAX_CONNECTIONS = 100
"""Of one event loop; who comes then waits for one."""
MAX_KEPT = 20
"""Idle connections."""
KEPT_SECONDS = 4.0
"""The engine closes what was idle for five."""
PIECE = 65_536
OK = 200


class NoReply(Exception):
    """The request or its answer did not arrive. ``late``: it was sent, and nothing came in time."""

    def __init__(self, late: bool) -> None:
        super().__init__("late" if late else "unreachable")
        self.late = late


class _Stale(Exception):
    """A kept connection was closed at the other end before anything of the answer came: the request is sent again."""


@dataclass(frozen=True)
class Reply:
    """``headers`` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        return json.loads(self.content)


class _Incoming:
    """An answer as it is parsed."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.began = self.ended = self.reusable = False

    def feed(self, data: bytes) -> None:
        """Raises NoReply: that is no HTTP, or the connection ended within the answer (no data); `_Stale`: before it."""
        if not data:
            raise NoReply(late=False) if self.began else _Stale
        self.began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise NoReply(late=False) from error

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended, self.reusable = True, self._parser.should_keep_alive()

    @property
    def status(self) -> int:
        """Once the headers are there."""
        return int(self._parser.get_status_code())

    def reply(self) -> Reply:
        return Reply(self.status, self.headers, bytes(self.body))


class _Address:
    """Where the engine listens: ``unix:/path/engine.sock`` or ``http(s)://host:port``."""

    def __init__(self, url: str) -> None:
        self.path = url.removeprefix("unix:") if url.startswith("unix:") else ""
        parts = urlsplit("http://engine" if self.path else url)
        self.host, self.name = parts.hostname or "localhost", parts.netloc.rpartition("@")[2]
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
        link = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(link, server_hostname=self.host) if self.tls else link

    async def open(self) -> _Stream:
        """Raises OSError, TimeoutError among them."""
        async with asyncio.timeout(CONNECT_SECONDS):
            if self.path:
                return await asyncio.open_unix_connection(self.path)
            return await asyncio.open_connection(self.host, self.port, ssl=self.tls)


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
        try:
            if self._failed is None:
                return self._read()
        except _Stale:
            pass
        if not self._kept:
            raise NoReply(late=False) from self._failed
        self._drop()
        self._kept = False
        self._send()
        return self()

    def _send(self) -> None:
        self._failed = None
        try:
            if self._link is None:
                self._link = self._links.address.connect()
            self._link.settimeout(self._seconds)
            self._link.sendall(self._request)
        except OSError as error:
            self._failed = error

    def _read(self) -> Reply:
        assert self._link is not None
        incoming = _Incoming()
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
        if len(self._idle) < MAX_KEPT:
            self._idle.append((time.monotonic(), os.getpid(), link))
        else:
            link.close()


def _readable(link: socket.socket) -> bool:
    """Whether there is something to read where nothing is asked: its end."""
    ready = select.poll()
    ready.register(link, select.POLLIN)
    return bool(ready.poll(0))


class _Streams:
    """Connections of one event loop: they belong to the loop that opened them."""

    def __init__(self, address: _Address) -> None:
        self.address = address
        self.places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[tuple[float, _Stream]] = []

    def take(self) -> _Stream | None:
        while self._idle:
            since, (reader, writer) = self._idle.pop()
            if time.monotonic() - since < KEPT_SECONDS and not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    def put(self, stream: _Stream) -> None:
        if len(self._idle) < MAX_KEPT:
            self._idle.append((time.monotonic(), stream))
        else:
            stream[1].close()


class _Exchange:
    """One request and its answer, as `Coming`. Left before its end, it closes the connection."""

    def __init__(self, streams: _Streams, request: bytes, seconds: float) -> None:
        self._streams, self._request, self._seconds = streams, request, seconds
        self._stream: _Stream | None = None
        self._kept = False
        self._incoming = _Incoming()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._seconds):
                await self._streams.places.acquire()
        except TimeoutError as error:
            raise NoReply(late=True) from error
        self._stream = self._streams.take()
        self._kept = self._stream is not None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stream is not None and self._incoming.ended and self._incoming.reusable:
            self._streams.put(self._stream)
        else:
            self._drop()
        self._streams.places.release()

    async def more(self) -> _Incoming:
        """What there is of the answer, once more of it has come."""
        try:
            if self._stream is None or not self._incoming.began:
                await self._send()
            self._incoming.feed(await self._read())
        except _Stale as stale:
            if not self._kept:
                raise NoReply(late=False) from stale
            self._drop()
            self._kept = False
            return await self.more()
        return self._incoming

    async def _send(self) -> None:
        if self._stream is None:
            try:
                self._stream = await self._streams.address.open()
            except OSError as error:
                raise NoReply(late=False) from error
        try:
            async with asyncio.timeout(self._seconds):
                self._stream[1].write(self._request)
                await self._stream[1].drain()
        except TimeoutError as error:
            raise NoReply(late=True) from error
        except OSError:
            pass  # the answer says what became of it, or its absence

    async def _read(self) -> bytes:
        assert self._stream is not None
        try:
            async with asyncio.timeout(self._seconds):
                return await self._stream[0].read(PIECE)
        except TimeoutError as error:
            raise NoReply(late=True) from error
        except OSError:
            return b""

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].transport.abort()


class Transport:
    """One instance serves many threads and event loops, also after a fork. Everything raises `NoReply`."""

    def __init__(self, url: str, token: str = "") -> None:
        """``url``: ``unix:/path/engine.sock`` or ``http://host:port``."""
        self._address = _Address(url)
        guard = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = f"Host: {self._address.name}\r\n{guard}Content-Type: application/json\r\n"
        self._links = _Links(self._address)
        self._streams: WeakKeyDictionary[asyncio.AbstractEventLoop, _Streams] = WeakKeyDictionary()

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
            self._streams[loop] = _Streams(self._address)
        return _Exchange(self._streams[loop], request, seconds)

    def _written(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        line = f"{method} {self._address.before}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        return line.encode() + content

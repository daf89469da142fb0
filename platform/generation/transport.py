"""HTTP to the engine process, over a Unix socket or loopback.

On httpcore, which is what httpx stands on: cookies, redirects, proxies and encodings of strangers' servers are of no
use here, and cost more than the request itself (1.0 against .4 ms of processor time for each question's vector).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import httpcore

CONNECT_SECONDS = 3.0
MAX_CONNECTIONS = 100
MAX_KEPT = 20
"""Idle connections."""
KEPT_SECONDS = 5.0
OK = 200


class NoReply(Exception):
    """The request or its answer did not arrive. ``late``: it was sent, and nothing came in time."""

    def __init__(self, late: bool) -> None:
        super().__init__("late" if late else "unreachable")
        self.late = late


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


class Transport:
    """One instance serves many threads and event loops, also after a fork. Everything raises `NoReply`."""

    def __init__(self, url: str, token: str = "") -> None:
        """``url``: ``unix:/path/engine.sock`` or ``http://host:port``."""
        unix = url.startswith("unix:")
        self._base = "http://engine" if unix else url.rstrip("/")
        self._pool: dict[str, Any] = {
            "max_connections": MAX_CONNECTIONS, "max_keepalive_connections": MAX_KEPT, "keepalive_expiry": KEPT_SECONDS,
            "uds": url.removeprefix("unix:") if unix else None,
        }  # fmt: skip
        self._headers = {"Content-Type": "application/json", "Accept": "*/*"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._sync: tuple[int, httpcore.ConnectionPool] | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, httpcore.AsyncConnectionPool] = WeakKeyDictionary()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None, *, seconds: float) -> Reply:
        """``seconds``: how long the answer may keep still."""
        try:
            return _reply(self._blocking().request(method, self._base + path, **self._request(body, seconds)))
        except _ERRORS as error:
            raise _no_reply(error) from error

    async def acall(self, method: str, path: str, body: Mapping[str, Any] | None, *, seconds: float) -> Reply:
        """As `call`. Cancelling it closes the connection, so that the engine sees that nobody waits any more."""
        try:
            pool = self._waiting()
            return _reply(await pool.request(method, self._base + path, **self._request(body, seconds)))
        except _ERRORS as error:
            raise _no_reply(error) from error

    async def alines(
        self, path: str, body: Mapping[str, Any], *, seconds: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        """Lines of the answer to a POST as they come; instead of them a `Reply`, where the status is another than 200.
        Closing the generator closes the connection."""
        try:
            pool, request = self._waiting(), self._request(body, seconds)
            async with pool.stream("POST", self._base + path, **request) as answer:
                if answer.status != OK:
                    await answer.aread()
                    yield _reply(answer)
                    return
                rest = b""
                async for part in answer.aiter_stream():
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        yield line
        except _ERRORS as error:
            raise _no_reply(error) from error

    def _request(self, body: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        limits = {"connect": CONNECT_SECONDS, "read": seconds, "write": seconds, "pool": seconds}
        content = None if body is None else json.dumps(body).encode()
        return {"headers": self._headers, "content": content, "extensions": {"timeout": limits}}

    def _blocking(self) -> httpcore.ConnectionPool:
        """Connections are not shared over a fork."""
        if self._sync is None or self._sync[0] != os.getpid():
            self._sync = os.getpid(), httpcore.ConnectionPool(**self._pool)
        return self._sync[1]

    def _waiting(self) -> httpcore.AsyncConnectionPool:
        """One per event loop: connections belong to the loop that opened them."""
        loop = asyncio.get_running_loop()
        if loop not in self._async:
            self._async[loop] = httpcore.AsyncConnectionPool(**self._pool)
        return self._async[loop]


_ERRORS = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol)


def _reply(answer: httpcore.Response) -> Reply:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    return Reply(answer.status, headers, answer.content)


def _no_reply(error: Exception) -> NoReply:
    return NoReply(isinstance(error, httpcore.TimeoutException) and not isinstance(error, httpcore.ConnectTimeout))

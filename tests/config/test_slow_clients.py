"""Who keeps a connection and sends little or nothing: over sockets, to the application that serves."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from config import processes, receiving, wire
from tests import servers


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not
    with servers.serving(application, http=wire.PatientProtocol) as address:
        yield address


@pytest.fixture(autouse=True)
def hurry(settings: Any) -> None:
    settings.RATCHET_RECEIVE_TIMEOUT = 2


def line(web: str, *said: bytes, wait: float = 0.0) -> socket.socket:
    place = urlsplit(web)
    found = socket.create_connection((place.hostname, place.port), timeout=20)
    for piece in said:
        found.sendall(piece)
        time.sleep(wait)
    return found


def rest(found: socket.socket) -> bytes:
    """What comes until the server closes; fails when it does not."""
    said = b""
    with found:
        while piece := found.recv(65536):
            said += piece
    return said


HEAD = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_head_that_does_not_come_ends_the_connection(web: str) -> None:
    silent = [
        line(web, said) for said in (b"", b"POST /api/v1/tu", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ")
    ]
    assert [rest(found) for found in silent] == [b"", b"", b""]


def test_a_second_request_that_stops_in_its_head_ends_too(web: str) -> None:
    assert rest(line(web, WHOLE + WHOLE[:-4])).count(b"200 OK") == 1


def test_a_body_that_does_not_come_is_answered_and_ended(web: str) -> None:
    shapes = {
        b"/api/v1/turns": b"application/problem+json",
        b"/api/v1/documents": b"application/problem+json",
        b"/v1/chat/completions": b'"error"',
        b"/admin/login/": b"text/plain",
    }
    waiting = {path: line(web, HEAD % path + b"{") for path in shapes}
    for path, shape in shapes.items():
        said = rest(waiting[path])
        assert said.startswith(b"HTTP/1.1 408 "), path
        assert shape in said


def test_a_byte_now_and_then_does_not_help(web: str) -> None:
    began = time.monotonic()
    found = line(web, HEAD % b"/api/v1/turns")
    with pytest.raises(OSError, match=r"."):  # noqa: PT012 - it may break in any of them
        while time.monotonic() - began < 30:
            found.sendall(b" ")
            time.sleep(0.1)
    found.close()


def test_slow_and_steady_is_let_through(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "SLOWEST", 1)
    body = b" " * 500
    found = line(web, HEAD % b"/api/v1/turns", *(body[i : i + 50] for i in range(0, 500, 50)), wait=0.3)
    found.sendall(b"")
    assert found.recv(65536).startswith(b"HTTP/1.1 401 ")
    found.close()


def test_headers_behind_a_body_are_not_kept(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    plain = wire.PatientProtocol.on_message_complete

    def counted(self: Any) -> None:
        kept.append(len(self.headers))
        plain(self)

    monkeypatch.setattr(wire.PatientProtocol, "on_message_complete", counted)
    head = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    said = rest(line(web, head + b"1\r\nx\r\n0\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n"))
    assert said.startswith(b"HTTP/1.1 ")
    assert kept == [3]


def test_headers_without_end_are_cut_off(web: str, settings: Any) -> None:
    settings.RATCHET_RECEIVE_TIMEOUT = 60
    found = line(web, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ")
    sent = 0
    with pytest.raises(OSError, match=r"."):  # noqa: PT012 - as above
        while sent < 64 * 2**20:
            found.sendall(b"a" * 65536)
            sent += 65536
    found.close()
    assert sent < 32 * 2**20  # what the kernel holds for both sides, and no more


def test_many_silent_connections_keep_nobody_waiting(web: str, settings: Any) -> None:
    settings.RATCHET_RECEIVE_TIMEOUT = 3
    silent = [line(web, b"POST /api/v1/turns HTTP/1.1\r\nX-A: ") for _ in range(300)]
    assert httpx.get(f"{web}/healthz", trust_env=False, timeout=20).status_code == 200
    assert [rest(found) for found in silent] == [b""] * 300


def test_a_request_that_waits_for_its_answer_is_not_meant(web: str) -> None:
    """The time counts for what the client sends, and a kept connection is the server's business."""
    with httpx.Client(base_url=web, trust_env=False, timeout=20) as http:
        assert http.get("/healthz").status_code == 200
        time.sleep(3)
        assert http.get("/healthz").status_code == 200


OFFERS = {
    "java": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
}
FRAMES = {
    "length": (b"Content-Length: 11\r\n", b'{"field":1}'),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b'6\r\n{"fiel\r\n5\r\nd":1}\r\n0\r\n\r\n'),
}


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """Answers with what it was sent."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        said = scope["method"].encode() + b" " + scope["path"].encode() + b" " + body + b"\n"
        headers = [(b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    with servers.serving(application, http=wire.PatientProtocol) as address:
        yield address


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_request_that_offers_another_protocol_is_read_whole(echo: str, offer: str, frame: str, step: int) -> None:
    """However it is cut on its way, and with another request behind it."""
    framing, body = FRAMES[frame]
    first = b"POST /first HTTP/1.1\r\nHost: a\r\n" + OFFERS[offer] + framing + b"\r\n" + body
    bare = b"GET /bare HTTP/1.1\r\nHost: a\r\n" + OFFERS[offer] + b"\r\n"
    last = b"POST /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    sent = first + bare + first + last
    said = rest(line(echo, *(sent[at : at + step] for at in range(0, len(sent), step)))).decode()
    found = [one for one in said.splitlines() if one.startswith(("POST ", "GET "))]
    whole = 'POST /first {"field":1}'
    assert found == [whole, "GET /bare ", whole, "POST /last hi"]


def test_an_offer_does_not_keep_a_connection(web: str) -> None:
    head = b" HTTP/1.1\r\nHost: localhost\r\n" + OFFERS["websocket"]
    assert rest(line(web, b"GET /healthz" + head + b"\r\n")).startswith(b"HTTP/1.1 200")
    posted = rest(line(web, b"POST /api/v1/turns" + head + b"Content-Length: 500\r\n\r\n{"))
    assert posted.startswith(b"HTTP/1.1 408")
    assert b"HTTP/1.1 400 " in rest(line(web, b"GET /healthz" + head + b"\r\n" + b"\x81\x05hello"))


def test_a_websocket_is_closed() -> None:
    from asgiref.testing import ApplicationCommunicator

    from config.asgi import application

    async def ask() -> dict[str, Any]:
        asked = ApplicationCommunicator(application, {"type": "websocket", "path": "/", "headers": []})
        await asked.send_input({"type": "websocket.connect"})
        said: dict[str, Any] = await asked.receive_output()
        await asked.wait()
        return said

    assert asyncio.run(ask())["type"] == "websocket.close"


def test_the_supervisor_starts_the_web_process_with_it() -> None:
    command = processes.web("127.0.0.1", 8000).command
    assert command[command.index("--ws") + 1] == "none"
    assert command[command.index("--http") + 1] == f"{wire.__name__}:{wire.PatientProtocol.__qualname__}"

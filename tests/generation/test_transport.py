"""What is between a process and the engine, against servers that close, stall and answer in pieces."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from generation import transport
from generation.http1 import NoReply, Reply
from generation.transport import Transport

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'
Act = Callable[[socket.socket, bytes], bool]
"""What is done with a request on a connection; whether that stays open."""


class Server:
    """Does one act after the other, one a request, over however many connections."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix:{path}"
        self.acts: list[Act] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.early = b""
        """Said to a request before it is read."""
        self.left = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                link, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link:
            if self.early:
                link.recv(100)
                link.sendall(self.early)
                time.sleep(0.2)
                return
            open_still = True
            while open_still:
                data = b""
                while not _is_whole(data):
                    try:
                        piece = link.recv(65_536)
                    except OSError:
                        piece = b""
                    if not piece:
                        self.left.set()
                        return
                    data += piece
                self.requests.append(data)
                open_still = self.acts.pop(0)(link, data)


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return len(body) >= length


def answers(data: bytes = WHOLE, *, stays: bool = True) -> Act:
    def act(link: socket.socket, request: bytes) -> bool:
        link.sendall(data)
        return stays

    return act


def pieces(*parts: bytes) -> Act:
    def act(link: socket.socket, request: bytes) -> bool:
        for part in parts:
            link.sendall(part)
            time.sleep(0.01)
        return True

    return act


def stalls(link: socket.socket, request: bytes) -> bool:
    return True  # waits for more, or for the end


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "e.sock")
    yield server
    server.close()


LOOPS: dict[str, Any] = {"asyncio": None, "uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class Ask:
    """One call; ``wait`` lets its event loop, if it has one, go on for some seconds."""

    call: Callable[[Any, float], Reply]
    wait: Callable[[float], None]

    def __call__(self, body: Any = None, seconds: float = 5.0) -> Reply:
        return self.call(body, seconds)


@pytest.fixture(params=["blocking", *LOOPS])
def ask(request: pytest.FixtureRequest, server: Server) -> Iterator[Ask]:
    """One call, by either way; all calls of a test share the connections."""
    made = Transport(server.url, "secret")
    if request.param == "blocking":
        yield Ask(lambda body, seconds: made.send("POST", "/x", body, seconds=seconds)(), time.sleep)
        return
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield Ask(
            lambda body, seconds: runner.run(made.acall("POST", "/x", body, seconds=seconds)),
            lambda seconds: runner.run(asyncio.sleep(seconds)),
        )


def test_a_connection_is_used_again(ask: Ask, server: Server) -> None:
    server.acts = [answers(), answers(b"HTTP/1.1 204 No Content\r\nX-Dimension: 7\r\n\r\n"), answers()]
    assert ask({"question": "é"}).json() == {"a": 1}
    nothing = ask()
    assert (nothing.status, nothing.content, nothing.headers["x-dimension"]) == (204, b"", "7")
    assert ask().is_success
    assert server.connections == 1
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1\r\nHost: engine\r\n")
    assert b"Authorization: Bearer secret" in head
    assert body == rb'{"question": "\u00e9"}'


def test_an_answer_in_pieces_and_in_chunks(ask: Ask, server: Server) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1, \r\n2\r\n2]\r\n0\r\n\r\n"
    server.acts = [pieces(*(WHOLE[i : i + 5] for i in range(0, len(WHOLE), 5))), pieces(chunked[:50], chunked[50:])]
    assert ask().json() == {"a": 1}
    assert ask().json() == [1, 2]
    assert server.connections == 1


def test_a_server_that_closes_behind_its_answer_is_reached_again(ask: Ask, server: Server) -> None:
    server.acts = [answers(stays=False), answers(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")]
    server.acts += [answers()]
    for _ in range(3):
        assert ask().is_success
    assert server.connections == 3


def test_a_kept_connection_that_ends_without_a_byte_is_tried_anew_and_a_new_one_is_not(
    ask: Ask, server: Server
) -> None:
    server.acts = [answers(), answers(b"", stays=False), answers()]
    assert ask().is_success
    assert ask().is_success
    assert [len(server.requests), server.connections] == [3, 2]
    server.acts = [answers(b"", stays=False), answers(b"", stays=False)]
    with pytest.raises(NoReply) as refused:  # the kept one, then a new one
        ask()
    assert not refused.value.late
    assert len(server.requests) == 5


@pytest.mark.parametrize("broken", [WHOLE[:-3], b"HTTP/1.1 200 OK\r\nContent-", b"220 smtp.example.org ready\r\n\r\n"])
def test_half_an_answer_is_none_and_is_not_asked_for_again(ask: Ask, server: Server, broken: bytes) -> None:
    server.acts = [answers(), answers(broken, stays=False), answers()]
    assert ask().is_success
    with pytest.raises(NoReply) as refused:
        ask()
    assert not refused.value.late
    assert len(server.requests) == 2
    assert ask().is_success, "and the next call is none the worse"


BEHIND = [
    pytest.param(WHOLE + WHOLE, id="another answer"),
    pytest.param(WHOLE + b"HTTP/1.1 2", id="the beginning of one"),
    pytest.param(WHOLE + b"garbage", id="no answer"),
    pytest.param(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="another protocol"),
]


@pytest.mark.parametrize("data", BEHIND)
def test_more_than_was_asked_for_is_no_answer(ask: Ask, server: Server, data: bytes) -> None:
    server.acts = [answers(data), answers(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"b": 2}')]
    with pytest.raises(NoReply):
        ask()
    assert ask().json() == {"b": 2}
    assert server.connections == 2


def test_what_comes_unasked_is_nobodys_answer(ask: Ask, server: Server) -> None:
    """A proxy's 408 before it closes an idle connection, say."""
    unasked = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"

    def later(link: socket.socket, request: bytes) -> bool:
        link.sendall(WHOLE)
        time.sleep(0.2)
        link.sendall(unasked)
        return True

    server.acts = [later, answers(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"b": 2}')]
    assert ask().json() == {"a": 1}
    ask.wait(0.5)
    assert ask().json() == {"b": 2}


def test_an_interim_answer_is_not_the_answer(ask: Ask, server: Server) -> None:
    server.acts = [pieces(b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n", WHOLE), answers()]
    found = ask()
    assert (found.status, found.json(), "x-early" in found.headers) == (200, {"a": 1}, False)
    assert ask().is_success
    assert server.connections == 1


def test_an_answer_that_comes_before_all_is_sent_is_read(ask: Ask, server: Server) -> None:
    refused = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 8\r\n\r\n" + b'{"a": 1}'
    server.early = refused
    assert ask({"text": "x" * 5_000_000}).status == 413


def test_loops_that_have_ended_leave_nothing_open(server: Server) -> None:
    made = Transport(server.url)
    server.acts = [answers() for _ in range(30)]
    for _ in range(30):
        asyncio.run(made.acall("POST", "/x", {}, seconds=5))
    assert len(made._streams) == 1


@pytest.mark.parametrize("url", ["localhost:1", "ftp://localhost", "http://", "http://a..b:1"])
def test_an_address_that_is_none(url: str) -> None:
    made = Transport(url)
    with pytest.raises(NoReply):
        made.send("GET", "/health", None, seconds=1)()
    with pytest.raises(NoReply):
        asyncio.run(made.acall("GET", "/health", None, seconds=1))


def test_silence_is_late_and_nobody_else_gets_its_answer(ask: Ask, server: Server) -> None:
    server.acts = [stalls, answers()]
    with pytest.raises(NoReply) as late:
        ask(seconds=0.1)
    assert late.value.late
    assert server.left.wait(5), "whoever waits no more has gone"
    assert ask().json() == {"a": 1}


def test_nobody_there(tmp_path: Path) -> None:
    away = Transport(f"unix:{tmp_path / 'nobody.sock'}")
    coming = away.send("GET", "/health", None, seconds=1)
    with pytest.raises(NoReply) as blocking:
        coming()
    with pytest.raises(NoReply) as asynchronous:
        asyncio.run(away.acall("GET", "/health", None, seconds=1))
    assert not blocking.value.late
    assert not asynchronous.value.late


def test_an_answer_that_nobody_fetches_takes_its_connection_with_it(server: Server) -> None:
    server.acts = [stalls]
    coming = Transport(server.url).send("POST", "/embeddings", {}, seconds=5)
    del coming
    assert server.left.wait(5)


def test_a_cancelled_call_closes_its_connection(server: Server) -> None:
    server.acts = [stalls]

    async def cancelled() -> None:
        made = Transport(server.url)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await made.acall("POST", "/generate", {}, seconds=5)

    asyncio.run(cancelled())
    assert server.left.wait(5)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _lines(url: str, *, most: int = 100) -> list[Any]:
    found: list[Any] = []
    lines: AsyncGenerator[Reply | bytes, None] = Transport(url).alines("/stream", {}, seconds=5)
    async for line in lines:
        found.append(line)
        if len(found) == most:
            break
    await lines.aclose()
    return found


def test_lines_come_as_they_are_written(server: Server) -> None:
    server.acts = [pieces(HEAD + b"5\r\none\nt\r\n", b"6\r\nwo\n\nth\r\n", b"4\r\nree\n\r\n0\r\n\r\n")]
    assert asyncio.run(_lines(server.url)) == [b"one", b"two", b"", b"three"]


def test_a_stream_that_is_left_ends_at_the_server(server: Server) -> None:
    server.acts = [answers(HEAD + b"4\r\none\n\r\n")]
    assert asyncio.run(_lines(server.url, most=1)) == [b"one"]
    assert server.left.wait(5)


def test_a_refused_stream_is_its_whole_reply(server: Server) -> None:
    server.acts = [pieces(b"HTTP/1.1 503 Busy\r\nContent-Length: 8\r\n\r\n{", b'"a": 1}')]
    (refusal,) = asyncio.run(_lines(server.url))
    assert (refusal.status, refusal.json()) == (503, {"a": 1})


def test_a_crowd_shares_the_places(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 3)
    server.acts = [answers() for _ in range(20)]

    async def crowd() -> list[Reply]:
        made = Transport(server.url)
        return await asyncio.gather(*(made.acall("POST", "/x", {}, seconds=5) for _ in range(20)))

    assert all(reply.is_success for reply in asyncio.run(crowd()))
    assert server.connections <= 3

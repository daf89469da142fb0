"""A door before the real server: it lets requests through, or behaves as networks and proxies do."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass
class Seen:
    """A request that came to the door."""

    path: str
    headers: Mapping[str, str]
    items: list[dict[str, Any]]
    at: float = field(default_factory=time.monotonic)


class Door:
    """``says``: answer so and do not forward. ``delay``: seconds before anything. ``swallows``: forward, and drop the
    answer. ``chokes_on``: 500 where the body holds that text. `shut` and `open` take the port away and give it back."""

    def __init__(self, inner: str) -> None:
        self.inner = inner
        self.seen: list[Seen] = []
        self.says: tuple[int, dict[str, str]] | None = None
        self.delay = 0.0
        self.swallows = False
        self.chokes_on = ""
        self.plain_only = False
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: ThreadingHTTPServer | None = None

    def open(self) -> None:
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                door.answer(self)

            do_PATCH = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                pass  # clients that hang up are what these tests are about

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def shut(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        packed = request.headers.get("Content-Encoding") == "gzip"
        plain = gzip.decompress(body) if packed else body
        says, swallows = self.says, self.swallows  # before it is seen: who waits for that then changes them
        self.seen.append(Seen(request.path, dict(request.headers.items()), json.loads(plain)))
        if self._server is None:
            request.close_connection = True  # a connection from before the door was shut
            return
        time.sleep(self.delay)
        if self.chokes_on and self.chokes_on.encode() in plain:
            says = (500, {})
        if packed and self.plain_only:
            says = (415, {})
        if says is not None:
            self._write(request, says[0], says[1], b"")
            return
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type")}
        if packed:
            headers["Content-Encoding"] = "gzip"
        inner = httpx.request(
            request.command, self.inner + request.path, content=body, headers=headers, timeout=30, trust_env=False
        )
        if swallows:
            request.close_connection = True
            return
        kept = {name: inner.headers[name] for name in ("Content-Type", "Retry-After") if name in inner.headers}
        self._write(request, inner.status_code, kept, inner.content)

    def _write(self, request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

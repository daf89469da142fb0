"""An answer in HTTP/1.1, as httptools parses it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httptools

OK = 200


class NoReply(Exception):
    """The request or its answer did not arrive. ``late``: it was sent, and nothing came in time."""

    def __init__(self, late: bool) -> None:
        super().__init__("late" if late else "unreachable")
        self.late = late


class Stale(Exception):
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


class Incoming:
    """An answer as it is parsed."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.began = self.ended = self.reusable = False

    def feed(self, data: bytes) -> None:
        """Raises NoReply: that is no HTTP, or more than one answer, or the connection ended within it (no data);
        `Stale`: it ended before."""
        if not data:
            raise NoReply(late=False) if self.began else Stale
        self.began = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            raise NoReply(late=False) from error

    def on_message_begin(self) -> None:
        if self.ended:
            raise ValueError("nobody has asked for what stands behind the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        if self.status < OK:  # "100 Continue": the answer is still to come
            self.headers.clear()
            return
        self.ended, self.reusable = True, self._parser.should_keep_alive()

    @property
    def status(self) -> int:
        """Once the headers are there."""
        return int(self._parser.get_status_code())

    def reply(self) -> Reply:
        return Reply(self.status, self.headers, bytes(self.body))

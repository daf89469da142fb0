"""Answers that are given before Django has a request: a problem for programs, a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import CONTENT_TYPE, is_api_path, openai_body, problem_body, speaks_openai

_OPENAI = {401: ("authentication_error", "invalid_api_key"), 503: ("server_error", None)}


@dataclass(frozen=True)
class Answer:
    """After it the connection is closed: what a client still sends on it is no request."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    async def send(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body})


def shaped(path: str, status: int, said: str, *, code: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    """``said`` in the shape that clients of ``path`` read."""
    kind, body = "text/plain; charset=utf-8", said.encode()
    if speaks_openai(path):
        kind = "application/json"
        kind_of_error, code_of_error = _OPENAI.get(status, ("invalid_request_error", None))
        body = json.dumps(openai_body(said, kind_of_error, code_of_error)).encode()
    elif is_api_path(path):
        kind = CONTENT_TYPE
        body = json.dumps(problem_body(status, detail=said, instance=path, code=code)).encode()
    given = {"content-type": kind, "content-length": str(len(body)), "connection": "close", **(headers or {})}
    return Answer(status, tuple((name.lower().encode(), value.encode()) for name, value in given.items()), body)

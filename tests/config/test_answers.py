"""Questions of chat clients on the event loop: what Django's own handler says of them is said here too."""

from __future__ import annotations

import asyncio
from typing import Any

import asgiref.sync
import httpx
import pytest
from django.core.asgi import get_asgi_application

from config.answers import AnswerHandler, is_asked
from config.bounds import bounded

COOKIES = {"set-cookie", "vary"}
"""Of pages only."""


@pytest.fixture(autouse=True)
def _database(db: None) -> None:
    """A view that looks for a key has one."""


def ask(application: Any, method: str, path: str, **more: Any) -> httpx.Response:
    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.request(method, path, **more)

    return asyncio.run(answer())


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in COOKIES}


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("POST", "/v1/chat/completions", {"json": {"model": "x"}}, 401),
        ("GET", "/v1/chat/completions", {}, 405),
        ("GET", "/v1/models", {}, 401),
        ("GET", "/v1/models/a/b", {}, 401),
        ("GET", "/v1/models/", {}, 404),
        ("GET", "/v1/models", {"headers": {"Host": "elsewhere.example"}}, 400),
        ("POST", "/v1/chat/completions", {"headers": {"Host": "no host/"}}, 400),
    ],
)
def test_it_refuses_as_djangos_own_handler_does(method: str, path: str, more: Any, status: int, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    assert is_asked(path)
    own, django = ask(AnswerHandler(), method, path, **more), ask(get_asgi_application(), method, path, **more)
    assert (own.status_code, own.content) == (django.status_code, django.content)
    assert own.status_code == status
    # Of a host that is refused pages say no more than the inner middleware knows.
    assert headers_of(own) == {"x-frame-options": "DENY"} | headers_of(django)
    assert own.headers["X-Content-Type-Options"] == "nosniff"


def test_encryption_is_asked_for_where_it_is_wanted(settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 60
    answer = ask(AnswerHandler(), "GET", "/v1/models")
    assert (answer.status_code, answer.headers["Location"]) == (301, "https://localhost/v1/models")


def test_no_request_waits_for_the_thread_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    crossed: list[bool] = []
    call = asgiref.sync.SyncToAsync.__call__

    async def counted(self: Any, *given: Any, **named: Any) -> Any:
        crossed.append(self._thread_sensitive)
        return await call(self, *given, **named)

    monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", counted)
    assert ask(AnswerHandler(), "GET", "/v1/models").status_code == 401
    assert not any(crossed)
    crossed.clear()
    assert ask(get_asgi_application(), "GET", "/v1/models").status_code == 401
    assert sum(crossed) > 5


def test_a_client_that_leaves_ends_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the view held is let go."""
    ended = []

    async def slow(request: Any, *_: Any, **__: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    monkeypatch.setattr(AnswerHandler, "run_get_response", lambda self, request: slow(request))
    sent: list[Any] = []

    async def leave() -> None:
        messages = iter([{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            await asyncio.sleep(0.01)
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b"",
            "http_version": "1.1",
        }  # fmt: skip
        await asyncio.wait_for(bounded(AnswerHandler())(scope, receive, send), 10)

    asyncio.run(leave())
    assert ended == [True]
    assert sent == []

"""Posts that are answered in threads: what is read of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.core.exceptions import RequestAborted

from config import intake
from config.doorman import Refused
from config.intake import IntakeHandler

PIECE = b"x" * 1000


def read(messages: list[dict[str, Any]]) -> tuple[bytes, int]:
    """The body that is kept, and how many messages were left on the line."""
    line = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(line)

    handler = IntakeHandler()
    body = asyncio.run(handler.take_in(receive, "/api/v1/turns"))
    assert handler.held == len(body)
    return body, len(list(line))


def pieces(count: int) -> list[dict[str, Any]]:
    return [{"type": "http.request", "body": PIECE, "more_body": place < count - 1} for place in range(count)]


def test_a_body_is_kept_up_to_the_limit_and_taken_off_the_line(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2500
    assert read(pieces(2)) == (PIECE * 2, 0)
    assert read(pieces(9)) == ((PIECE * 3)[:2501], 0)
    assert read([{"type": "http.request"}]) == (b"", 0)


def test_no_large_body_is_taken_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones are; and the room comes back with whoever is refused, leaves, or is answered."""
    monkeypatch.setattr(intake, "MOST_HELD", 5000)
    monkeypatch.setattr(intake, "FREE", 2500)
    handler = IntakeHandler()
    handler.held = 4000

    def ask(messages: list[dict[str, Any]]) -> bytes:
        line = iter(messages)

        async def receive() -> dict[str, Any]:
            return next(line)

        return asyncio.run(handler.take_in(receive, "/api/v1/turns/batch"))

    assert ask(pieces(2)) == PIECE * 2
    assert handler.held == 6000
    with pytest.raises(Refused) as refused:
        ask(pieces(3))
    assert refused.value.answer.status == 503
    assert (b"retry-after", b"2") in refused.value.answer.headers
    assert json.loads(refused.value.answer.body)["status"] == 503
    with pytest.raises(RequestAborted):
        ask([*pieces(2)[:1], {"type": "http.disconnect"}])
    assert handler.held == 6000


@pytest.mark.django_db(transaction=True)
def test_what_was_answered_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = IntakeHandler()
    sent: list[dict[str, Any]] = []

    async def post() -> None:
        line = iter(pieces(3))

        async def receive() -> dict[str, Any]:
            return next(line)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/api/v1/turns", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }  # fmt: skip
        await handler.handle(scope, receive, send)

    asyncio.run(post())
    assert sent[0]["status"] == 401
    assert handler.held == 0


def test_a_client_that_goes_away_is_no_request() -> None:
    with pytest.raises(RequestAborted):
        read([*pieces(2)[:1], {"type": "http.disconnect"}])

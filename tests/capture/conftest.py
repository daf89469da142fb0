"""The cast of the capture tests: alice runs a bot, bob labels on it, carol belongs to another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client

from assistants import limits
from assistants.models import ApiKey, Assistant
from assistants.services import issue_key
from tests.factories import add_member, make_assistant


@dataclass
class Cast:
    alice: User
    bob: User
    carol: User
    dana: User
    bot: Assistant
    other: Assistant
    key: ApiKey
    secret: str
    other_secret: str


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    limits.reset()
    yield
    limits.reset()


@pytest.fixture
def cast(db: None) -> Cast:
    # Without passwords, whose hashing would take most of the time of these tests; pages are entered by force_login.
    people = [User(username=name, is_staff=True) for name in ("alice", "bob", "carol", "dana")]
    alice, bob, carol, dana = User.objects.bulk_create(people)
    bot, other = make_assistant("bot"), make_assistant("other")
    add_member(bot, alice, "admin")
    add_member(bot, bob, "annotator")
    add_member(bot, dana, "privacy")
    add_member(other, carol, "admin")
    add_member(other, carol, "privacy")
    key, secret = issue_key(assistant=bot, name="frontend", scopes=["log", "read"])
    _, other_secret = issue_key(assistant=other, name="frontend", scopes=["log", "read"])
    return Cast(alice, bob, carol, dana, bot, other, key, secret, other_secret)


Call = Callable[..., Any]


@pytest.fixture
def api(cast: Cast, client: Client) -> Call:
    """``api("post", "turns", body)`` with the bot's key; ``secret=`` for another, "" for none."""

    def call(method: str, path: str, body: Any = None, *, secret: str | None = None, **extra: Any) -> Any:
        headers = {}
        if secret != "":
            headers["Authorization"] = f"Bearer {secret or cast.secret}"
        extra.setdefault("content_type", "application/json")
        if method == "get":
            extra.pop("content_type")
            return client.get(f"/api/v1/{path}", body, headers=headers, **extra)
        return getattr(client, method)(f"/api/v1/{path}", body, headers=headers, **extra)

    return call


def streamed_bytes(response: Any) -> bytes:
    """The whole body of an answer that is streamed from an asynchronous source."""

    async def collect() -> bytes:
        return b"".join([piece async for piece in response.streaming_content])

    return async_to_sync(collect)()


def turn_item(**fields: Any) -> dict[str, Any]:
    """A turn as a frontend posts it."""
    return {
        "id": "t-1",
        "conversation": "c-1",
        "question": "What does it cost to leave my plan early?",
        "history": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "How can I help?"}],
        "contexts": [
            {
                "text": "A fixed plan has an exit fee of £35. No fee is due in the last 49 days of the plan.",
                "title": "Leaving early", "source": "tariffs/leaving.md", "score": 0.81,
            },
            {"text": "Tell us 10 days before you move.", "title": "Moving", "source": "moving.md", "score": 0.4},
        ],
        "response": "The exit fee is £35 on a fixed plan. [1]",
        "model": "small-1",
        "latency_ms": 812.4,
        "completion_tokens": 18,
        "time": "2026-03-01T10:00:00Z",
        "tags": ["web"],
        "metadata": {"client": "web-2.1"},
        **fields,
    }  # fmt: skip

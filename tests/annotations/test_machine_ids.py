"""Which item of a batch of machine labels an answer speaks of."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from assistants.services import issue_key
from tests.factories import make_assistant, make_turn

pytestmark = pytest.mark.django_db


def test_a_refused_item_is_answered_under_its_own_id(client: Client) -> None:
    bot = make_assistant("bot")
    make_turn(bot, client_id="web-1")
    _, secret = issue_key(assistant=bot, name="judge", scopes=["annotate"])
    names = {"first": "ada@example.org", "second": "judge", "third": "grace@example.org", "last": "judge"}
    items = [
        {"id": key, "turn": "web-1", "kind": "LLM", "name": name, "verdict": "good"} for key, name in names.items()
    ]
    answer = client.post(
        "/api/v1/annotations", json.dumps(items), content_type="application/json",
        headers={"Authorization": f"Bearer {secret}"},
    )  # fmt: skip
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [(one["id"], one["status"]) for one in results] == [
        ("first", "invalid"), ("second", "created"), ("third", "invalid"), ("last", "created"),
    ]  # fmt: skip
    assert "ada@" not in answer.content.decode()

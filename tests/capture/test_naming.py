"""Names are kept, so that people can filter by them; numbers, addresses and secrets in them are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capture import naming
from capture.models import Conversation, Metric, Turn, TurnUpdate
from capture.naming import Names, is_plain
from capture.services import scrub_waiting
from privacy.entities import EntityTable
from privacy.policy import Policy
from tests.capture.conftest import Call, turn_item
from tests.capture.test_api import problem

CARD = "4929843177024463"
TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-mini-2024-07-18", "claude-3-5-sonnet-20241022", "meta-llama/Llama-3.1-8B-Instruct", "helpdesk-7",
        "ft:gpt-4o-mini-2024-07-18:acme:support-bot:9xYzAbCd", "mistral-7b-instruct-v0.3.Q4_K_M.gguf",
        "us.anthropic.claude-3-5-sonnet-20241022-v2:0", "helpdesk-20261121-171500", "adapter-2026-11-21T17:15:00",
        "projects/123456789012/locations/europe-west4/publishers/google/models/gemini-2.0-flash-001",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "shop-bot/2.1.20261121",
        "python-requests/2.31.0", "session_20261121171500", "0b7f3c9e-1d2a-4c5b-8e6f-7a8b9c0d1e2f", "bot/10.20.30.40",
    ],
)  # fmt: skip
def test_what_models_and_programs_are_called_is_nobody(name: str) -> None:
    assert is_plain(name)


@pytest.mark.parametrize(
    "name",
    [CARD, "tel.442079460958", TOKEN, "GB33BUKB20201555555555", "078-05-1120", f"card.{CARD}", "ann.bo@example.org"],
)
def test_what_has_a_form_of_its_own_is_found(name: str) -> None:
    assert not is_plain(name)


def test_words_need_no_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Web processes ask this of new metrics, and the recognisers' libraries are heavy."""
    monkeypatch.setattr(naming, "_scrubber", None)
    assert all(map(naming.is_plain, ["answer_relevance", "faithfulness.of.sources.v2", "Time to first token 95"]))


def names_of(turn: Turn) -> str:
    passages = [found.passage.metadata for found in turn.retrievals.all()]
    return json.dumps([turn.model, turn.adapter, turn.client, turn.metadata, passages, turn.pii, turn.question])


def test_no_name_of_a_turn_keeps_a_number_or_a_secret(api: Call) -> None:
    item = turn_item(
        question=f"Why was my card {CARD} refused?", model=f"bot {CARD}", adapter="tel.442079460958", client=TOKEN,
        metadata={CARD: 1, "calls": {"tel.442079460958": {"note": "mail me: zeb@example.org"}}, "shop": "north"},
        contexts=[{"text": "A card has sixteen digits.", "metadata": {f"seen-{CARD}": [{TOKEN: True}], "page": 3}}],
    )  # fmt: skip
    assert api("post", "turns", item).status_code == 201
    assert scrub_waiting().held == 0
    turn = Turn.objects.get()
    assert not any(value in names_of(turn) for value in (CARD, "442079460958", TOKEN, "zeb"))
    placeholder = turn.model.removeprefix("bot ")
    assert placeholder.startswith("[CREDIT_CARD_")
    assert placeholder in turn.question, "the same value, the same placeholder"
    assert turn.metadata[placeholder] == 1
    assert turn.metadata["shop"] == "north"
    assert turn.client.startswith("[SECRET_")
    assert CARD not in str(Conversation.objects.get().entities)
    # What is read can be posted again, as an import does.
    read = api("get", "turns/t-1").json()
    again = {"id": "t-2", **{name: read[name] for name in ("question", "response", "model", "adapter", "metadata")}}
    assert api("post", "turns", again).status_code == 201
    assert scrub_waiting().held == 0
    assert Turn.objects.get(client_id="t-2").metadata == turn.metadata


def test_the_user_agent_is_a_name_too(api: Call) -> None:
    api("post", "turns", turn_item(), HTTP_USER_AGENT=f"{TOKEN}/1.0")
    scrub_waiting()
    assert TOKEN not in Turn.objects.get().client


def test_keys_of_an_update_are_masked_and_its_note_with_them(api: Call) -> None:
    api("post", "turns", turn_item())
    api("patch", "turns/t-1", {"metadata": {CARD: "declined", "agent": 3}})
    assert scrub_waiting().held == 0
    turn = Turn.objects.get()
    (update,) = TurnUpdate.objects.all()
    assert sorted(turn.metadata) == sorted(update.changes["metadata"] + ["client"])
    assert CARD not in names_of(turn) + str(update.changes)


@pytest.mark.parametrize("name", ["tel.442079460958", f"card.{CARD}"])
def test_a_metric_is_not_named_after_somebody(api: Call, name: str) -> None:
    api("post", "turns", turn_item())
    answer: dict[str, Any] = problem(
        api("post", "feedback", {"turn": "t-1", "kind": "metric", "metric": name, "value": 1}), 422
    )
    assert answer["errors"][0]["field"] == "metric"
    assert name not in str(answer)
    assert not Metric.objects.exists()


def test_two_spellings_of_one_number_stay_two_keys(api: Call) -> None:
    api("post", "turns", turn_item(metadata={CARD: 1, "4929-8431-7702-4463": 2}))
    assert scrub_waiting().held == 0
    metadata = Turn.objects.get().metadata
    assert sorted(metadata.values()) == [1, 2]
    assert not any("4929" in key for key in metadata)


def test_many_spellings_of_one_number_make_no_long_keys() -> None:
    """Their lengths add up to what their count does, not to its square."""
    spellings = {"".join(c + "-" * ((n >> i) & 1) for i, c in enumerate(CARD[:9])) + CARD[9:]: n for n in range(300)}
    value = {**spellings, "[CREDIT_CARD_1]_2": "was there"}
    masked = Names(Policy(), EntityTable(b"k" * 32)).keys(value)
    assert sorted(str(one) for one in masked.values()) == sorted(str(one) for one in value.values())
    assert masked["[CREDIT_CARD_1]_2"] == "was there"
    assert sum(CARD[9:] in key for key in masked) == 0
    assert max(map(len, masked)) < 64

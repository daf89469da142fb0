"""Where a turn came from stays readable: client, model, prompt, retrieval, and each passage as it came with it."""

from __future__ import annotations

from typing import Any

import pytest

from capture.models import Passage, Quarantine, Retrieval, Turn
from capture.receiving import product_of, receive_turns
from capture.services import scrub_waiting
from tests.capture.conftest import Call, Cast, turn_item
from tests.factories import make_document


def contexts(answer: Any) -> list[tuple[str, Any]]:
    return [(context["source"], context["metadata"]) for context in answer.json()["contexts"]]


def test_the_program_that_posted_is_named_by_its_agent_or_by_itself(api: Call, cast: Cast) -> None:
    agent = {"HTTP_USER_AGENT": "ratchet-client/0.1.0 (python 3.11; +https://example.org/ann)"}
    api("post", "turns", turn_item(id="a"), **agent)
    api("post", "turns/batch", [turn_item(id="b"), turn_item(id="c", client="shop-bot/2.1")], **agent)
    # Posted again by a newer client it is the same turn: the agent is no part of the content.
    again = api("post", "turns", turn_item(id="a"), HTTP_USER_AGENT="ratchet-client/0.2.0")
    assert again.json()["status"] == "duplicate"
    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item(id="d")])
    scrub_waiting()
    found = dict(Turn.objects.values_list("client_id", "client"))
    assert found == {"a": "ratchet-client/0.1.0", "b": "ratchet-client/0.1.0", "c": "shop-bot/2.1", "d": ""}
    assert api("get", "turns/c").json()["client"] == "shop-bot/2.1"


@pytest.mark.parametrize(
    ("agent", "product"),
    [
        ("ratchet-client/0.1.0 (python 3.11)", "ratchet-client/0.1.0"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("Mozilla/5.0 (X11; Linux) Gecko/2010", "Mozilla/5.0"),
        ("python-requests", "python-requests"),
        ("ann@example.org", ""),
        ('bot"/1.0', ""),
        ("bot/1.0\\", ""),
        ("x" * 61, ""),
        ("", ""),
        ("böt/1.0", ""),
    ],
)
def test_of_an_agent_only_name_and_version_are_kept(agent: str, product: str) -> None:
    assert product_of(agent) == product


def test_model_adapter_prompt_and_retrieval_can_be_anybodys(api: Call) -> None:
    digests = {"prompt_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
               "retrieval_config": "bm25+e5-large:k=8", "model": "vendor/model-3", "adapter": "support-v7"}  # fmt: skip
    assert api("post", "turns", turn_item(**digests)).status_code == 201
    scrub_waiting()
    read = api("get", "turns/t-1").json()
    assert {name: read[name] for name in digests} == digests


def test_one_text_from_two_places_keeps_both(api: Call, cast: Cast) -> None:
    text = "No fee is due in its last 49 days."
    here = {"text": text, "source": "v1/leaving.md", "metadata": {"page": 3}}
    there = {"text": text, "source": "v2/leaving.md", "metadata": {"page": 7, "section": "Fees"}}
    api("post", "turns", turn_item(id="a", contexts=[here]))
    api("post", "turns", turn_item(id="b", contexts=[there]))
    scrub_waiting()
    api("post", "turns/batch", [turn_item(id="c", contexts=[here]), turn_item(id="d", contexts=[there, here])])
    api("post", "turns", turn_item(id="e", contexts=[{"text": text}]))
    assert scrub_waiting().held == 0
    assert Passage.objects.filter(text=text).count() == 1
    first, second = ("v1/leaving.md", {"page": 3}), ("v2/leaving.md", {"page": 7, "section": "Fees"})
    assert contexts(api("get", "turns/a")) == [first]
    assert contexts(api("get", "turns/b")) == [second]
    assert contexts(api("get", "turns/c")) == [first]
    assert contexts(api("get", "turns/d")) == [second, first]
    assert contexts(api("get", "turns/e")) == [("", {})]
    # What is the same is not stored again.
    assert Retrieval.objects.filter(own_source__isnull=True, own_metadata__isnull=True).count() == 3


def test_sources_outlive_their_document(api: Call, cast: Cast) -> None:
    document = make_document(cast.bot, path="tariffs/leaving.md")
    api("post", "turns", turn_item())
    scrub_waiting()
    before = contexts(api("get", "turns/t-1"))
    document.delete()
    assert contexts(api("get", "turns/t-1")) == before == [("tariffs/leaving.md", {}), ("moving.md", {})]


def test_a_personal_name_in_a_source_is_masked_where_it_differs_too(api: Call) -> None:
    text = "A fixed plan has an exit fee."
    api("post", "turns", turn_item(id="a", contexts=[{"text": text, "source": "fees.md"}]))
    scrub_waiting()
    secret = {"text": text, "source": "mail from zeb@example.org", "metadata": {"author": "zeb@example.org"}}
    api("post", "turns", turn_item(id="b", contexts=[secret]))
    assert b"zeb" not in bytes(Quarantine.objects.get().payload)
    scrub_waiting()
    (found,) = contexts(api("get", "turns/b"))
    assert found[0].startswith("mail from [EMAIL")
    assert "zeb" not in str(found)

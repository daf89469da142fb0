"""The playground: it shows what users would get, stores nothing unasked, and only the right people keep anything."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.models import QueueItem
from assistants.models import Assistant, AuditEvent
from assistants.vault import decrypt
from capture.models import Quarantine, Turn
from knowledge.services import load_document
from serving.playground.keeping import NotKept, unseal
from tests.factories import add_member, make_adapter, make_assistant, make_queue, make_user
from tests.serving.conftest import QUESTION, Shop
from training.models import Benchmark, BenchmarkUpload

HOSTILE = "<script>alert(1)</script> fee?"


@pytest.fixture
def url() -> str:
    return reverse("dashboards:playground")


def enter(shop: Shop, role: str = "admin") -> Client:
    user = make_user(f"{role}-of-{shop.assistant.slug}")
    add_member(shop.assistant, user, role)
    client = Client()
    client.force_login(user)
    return client


def sealed(html: str) -> dict[str, str]:
    found = re.findall(r'name="(sealed_[ab])" value="([^"]+)"', html)
    return {name: unescape(value) for name, value in found}


def ask(client: Client, url: str, shop: Shop, **more: Any) -> str:
    answer = client.post(
        url, {"assistant": shop.assistant.slug, "question": QUESTION, "a": shop.assistant.slug, **more}
    )
    assert answer.status_code == 200, answer.content.decode()[-3000:]
    return answer.content.decode()


def test_two_arms_side_by_side_say_what_the_api_says(shop: Shop, url: str) -> None:
    adapter = make_adapter(shop.assistant, number=1, seed=1)
    slug = shop.assistant.slug
    shown = ask(enter(shop), url, shop, b=f"{slug}:1")
    Turn.objects.all().delete()
    for name, side in ((slug, "sealed_a"), (f"{slug}:1", "sealed_b")):
        one = unseal(shop.assistant, sealed(shown)[side])
        said = shop.ask(name, max_tokens=96).choices[0].message
        assert (one.item["response"], one.declined) == (said.content or "(empty)", said.context["declined"])
        assert [c["chunk"] for c in one.item["contexts"]] == [int(c["chunk_id"]) for c in said.context["citations"]]
    assert adapter.engine_name in shown
    assert "Question: " + QUESTION in unescape(shown)
    assert "Similarity:" in shown
    assert "leaving.md" in shown


def test_asking_stores_nothing(shop: Shop, url: str) -> None:
    client = enter(shop)
    before = AuditEvent.objects.count()
    ask(client, url, shop)
    assert not Quarantine.objects.exists()
    assert not Turn.objects.exists()
    assert AuditEvent.objects.count() == before


def test_where_no_sentence_was_offered_none_is_said_to_be(shop: Shop, url: str) -> None:
    client = enter(shop)
    assert "sentences were offered to the model" in ask(client, url, shop)
    assert "offered to" not in ask(client, url, shop, k="0")  # nothing was retrieved
    Assistant.objects.filter(pk=shop.assistant.pk).update(evidence_threshold=0.99)
    shown = ask(client, url, shop)
    assert "None was offered to a model" in shown
    assert "sentences were offered to the model" not in shown


def test_options_and_follow_ups(shop: Shop, url: str) -> None:
    client = enter(shop)
    first = ask(client, url, shop, k="1")
    assert len(unseal(shop.assistant, sealed(first)["sealed_a"]).item["contexts"]) == 1
    second = ask(client, url, shop, question="And when moving?", follow="on", **sealed(first))
    item = unseal(shop.assistant, sealed(second)["sealed_a"]).item
    assert item["history"][0]["content"] == QUESTION
    assert ask(client, url, shop, question="And when moving?", **sealed(first))
    bare = ask(client, url, shop, k="0")
    assert "Nothing was retrieved" in bare
    for wrong in ({"k": "21"}, {"k": "x"}, {"question": " "}, {"a": "other"}, {"question": "x" * 4001}):
        body = {"assistant": shop.assistant.slug, "question": QUESTION, "a": shop.assistant.slug, **wrong}
        assert client.post(url, body).status_code == 422


def test_text_is_never_markup(shop: Shop, url: str) -> None:
    load_document(assistant=shop.assistant, path="x.md", data=f"# Fees {HOSTILE}\n\nThe fee {HOSTILE} is £3.".encode())
    page = ask(enter(shop), url, shop, question=HOSTILE)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_who_may(shop: Shop, url: str) -> None:
    assert Client().get(url).status_code == 302
    for role, status in (("annotator", 403), ("privacy", 403), ("reviewer", 200), ("admin", 200)):
        client = enter(shop, role)
        assert client.get(url).status_code == status, role
        body = {"assistant": shop.assistant.slug, "question": QUESTION, "a": shop.assistant.slug}
        assert client.post(url, body).status_code == status
    reviewer = Client()
    user = make_user("rev2")
    add_member(shop.assistant, user, "reviewer")
    reviewer.force_login(user)
    page = ask(reviewer, url, shop)
    assert "Send to a queue" not in page
    queue = make_queue(shop.assistant)
    for action in ("send", "add", "freeze"):
        body = {"assistant": shop.assistant.slug, "action": action, "queue": queue.pk, **sealed(page)}
        assert reviewer.post(url, body).status_code == 403, action
    other = make_assistant(members={"admin": [make_user("carol")]})
    stranger = enter(Shop(other, shop.key, "", "", shop.openai, shop.http))
    assert stranger.get(url, {"assistant": shop.assistant.slug}).status_code == 403
    mixed = {"assistant": other.slug, "action": "send", "queue": queue.pk, **sealed(page)}
    assert stranger.post(url, mixed).status_code == 422
    assert not QueueItem.objects.exists()


def test_an_answer_goes_to_a_queue_once(shop: Shop, url: str) -> None:
    client, queue = enter(shop), make_queue(shop.assistant)
    page = ask(client, url, shop)
    body = {"assistant": shop.assistant.slug, "action": "send", "queue": queue.pk, "which": "a", **sealed(page)}
    for _ in range(2):
        assert client.post(url, body).status_code == 200
    (item,) = QueueItem.objects.filter(queue=queue)
    assert (item.turn.question, item.turn.tags) == (QUESTION, ["playground"])
    assert item.turn.retrievals.count() == 3
    event = AuditEvent.objects.get(action="playground.queued")
    assert QUESTION not in json.dumps(event.details)
    foreign = make_queue(make_assistant())
    assert client.post(url, {**body, "queue": foreign.pk}).status_code == 422
    changed = {**body, "sealed_a": body["sealed_a"][:-2] + "xx"}
    refused = client.post(url, changed)
    assert refused.status_code == 422
    assert "Ask again" in refused.content.decode()


def test_a_draft_becomes_a_benchmark_of_its_own(shop: Shop, url: str) -> None:
    client = enter(shop)
    frozen = Benchmark.objects.create(assistant=shop.assistant, name="Held out", content_hash="0" * 64)
    page = ask(client, url, shop)
    (gold,) = [v for v, _, s in unseal(shop.assistant, sealed(page)["sealed_a"]).offered if "£35" in s]
    add = {"assistant": shop.assistant.slug, "action": "add", "kind": "answer", "which": "a", **sealed(page)}
    for lacking in ({"answer": "It is £35."}, {"gold": [gold]}, {"kind": "x", "answer": "a", "gold": [gold]}):
        refused = client.post(url, {**add, **lacking})
        assert refused.status_code == 422
        typed = re.search(r'<textarea name="answer"[^>]*>(.*?)</textarea>', refused.content.decode(), re.S)
        assert typed is not None
        assert typed[1] == lacking.get("answer", "")
        assert (f'value="{gold}" checked' in refused.content.decode()) == ("gold" in lacking)
    draft = ""
    for number in (1, 2):
        added = client.post(url, {**add, "answer": "It is £35.", "gold": [gold], "draft": draft})
        assert added.status_code == 200, added.content.decode()[-2000:]
        draft = unescape(re.search(r'<textarea name="draft"[^>]*>(.*?)</textarea>', added.content.decode(), re.S)[1])  # type: ignore[index]
        assert len(draft.splitlines()) == number
    line = json.loads(draft.splitlines()[0])
    assert (line["question"], line["answers"], line["slice"]) == (QUESTION, ["It is £35."], "playground")
    assert line["gold"] == [{"path": "leaving.md", "sentence": "A fixed plan has an exit fee of £35."}]
    freeze = {"assistant": shop.assistant.slug, "action": "freeze", "draft": draft}
    assert client.post(url, {**freeze, "name": "Held out"}).status_code == 422  # frozen: nothing goes into it
    assert frozen.items.count() == 0
    assert client.post(url, {**freeze, "name": "From the playground"}).status_code == 302
    upload = BenchmarkUpload.objects.get()
    assert (upload.name, decrypt(upload.sealed or b"").decode()) == ("From the playground", draft)


def test_an_answer_of_another_prompt_is_not_kept(shop: Shop, url: str) -> None:
    page = ask(enter(shop), url, shop)
    shop.assistant.instructions = "Be kind."
    shop.assistant.save()
    with pytest.raises(NotKept):
        unseal(shop.assistant, sealed(page)["sealed_a"])


def test_without_an_engine_the_page_says_so(shop: Shop, url: str, settings: Any) -> None:
    client = enter(shop)
    settings.RATCHET_ENGINE_URL = "unix:/nonexistent/engine.sock"
    answer = client.post(url, {"assistant": shop.assistant.slug, "question": QUESTION, "a": shop.assistant.slug})
    assert answer.status_code == 422
    assert "does not answer" in answer.content.decode()


def test_as_many_queries_however_much_there_is(shop: Shop, url: str) -> None:
    client = enter(shop)

    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            assert client.get(url).status_code == 200
        return len(seen)

    client.get(url)
    before = queries()
    for number in range(1, 6):
        make_adapter(shop.assistant, number=number)
        make_queue(shop.assistant)
    assert queries() == before

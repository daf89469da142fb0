"""People who do not exist, through the chat API and the playground: nothing that is stored afterwards knows them."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from django.conf import settings
from django.test import Client
from django.urls import reverse

from assistants.background import launch
from capture.canaries import check
from capture.leaks import canaries_of
from capture.models import Turn
from tests.factories import add_member, make_queue, make_user
from tests.serving.conftest import Shop, turn_of
from training.models import BenchmarkItem, BenchmarkUpload


def test_no_canary_survives_a_chat_or_what_the_playground_keeps(shop: Shop) -> None:
    (person,) = canaries_of(shop.assistant, 1)
    p = person
    said = f"My name is {p.name}. Mail {p.mail}, phone {p.phone}, card {p.card}, IBAN {p.iban}. What does leaving cost?"
    body = {
        "model": shop.assistant.slug, "max_tokens": 12, "user": p.mail,
        "messages": [
            {"role": "user", "content": said}, {"role": "assistant", "content": f"Hello {p.name}."},
            {"role": "user", "content": said},
        ],
    }  # fmt: skip
    answer = shop.post(body)
    assert answer.status_code == 200, answer.text
    turn = turn_of(answer.json()["id"])
    assert turn.question.startswith("My name is [PERSON_1]")

    ada = make_user("ada")
    add_member(shop.assistant, ada, "admin")
    client = Client()
    client.force_login(ada)
    url = reverse("dashboards:playground")
    own = {"assistant": shop.assistant.slug, "a": shop.assistant.slug}
    asked = client.post(url, {**own, "question": said}).content.decode()
    sealed = {"sealed_a": unescape(re.findall(r'name="sealed_a" value="([^"]+)"', asked)[0]), "which": "a"}
    queue = make_queue(shop.assistant)
    sent = client.post(url, {**own, **sealed, "action": "send", "queue": queue.pk})
    assert sent.status_code == 200, sent.content.decode()[-2000:]
    kept = Turn.objects.get(queue_items__queue=queue)
    added = client.post(url, {**own, **sealed, "action": "add", "kind": "decline", "draft": ""}).content.decode()
    draft = unescape(re.findall(r'<textarea name="draft"[^>]*>(.*?)</textarea>', added, re.S)[0])
    assert json.loads(draft)["question"] == said
    frozen = client.post(url, {**own, "action": "freeze", "draft": draft, "name": "From the playground"})
    assert frozen.status_code == 302
    looked: list[Any] = []
    folders = [Path(settings.LOG_DIR), Path(settings.VAR_DIR) / "spool"]
    looked.append(check([person], folders=[folder for folder in folders if folder.is_dir()]))
    launch(BenchmarkUpload.objects.get(), foreground=True)
    (item,) = BenchmarkItem.objects.all()
    assert item.question.startswith("My name is [PERSON_1]")
    # By this name an erasure of the turn finds it.
    assert item.key.startswith(f"playground-{kept.client_id}-")
    looked.append(check([person], folders=[folder for folder in folders if folder.is_dir()]))
    assert [found.places for found in looked] == [{}, {}]

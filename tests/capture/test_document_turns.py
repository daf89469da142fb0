"""Which turns used a document: on its page and as a filter of the list."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant
from capture.models import Turn
from knowledge.models import Document
from knowledge.services import load_document
from tests.factories import make_assistant, make_turn, make_user

LIST = "admin:capture_turn_changelist"
PAGE = "admin:knowledge_document_change"
FEES = {"title": "Fees", "source": "fees.md", "text": "The exit fee is £35."}
METERS = {"title": "Meters", "source": "meters.md", "text": "Read the meter on the first day."}


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def bot(ada: User) -> Assistant:
    members = {"admin": [ada], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    return make_assistant("bot", members=members)


@pytest.fixture
def document(bot: Assistant) -> Document:
    load_document(assistant=bot, path="fees.md", data=b"# Fees\n\nThe exit fee is 35 pounds.")
    return Document.objects.get()


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def text(client: Client, url: str) -> str:
    answer = client.get(url, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def test_its_page_counts_them_and_leads_to_their_list(
    bot: Assistant, document: Document, django_assert_max_num_queries: Any
) -> None:
    page = reverse(PAGE, args=[document.pk])
    assert "No turn has retrieved anything" in text(enter("ada"), page)
    first = make_turn(bot, question="What is the exit fee?", contexts=[FEES, METERS])
    second = make_turn(bot, question="When do I read it?", contexts=[METERS, FEES])
    make_turn(bot, question="Only meters?", contexts=[METERS])
    # The same text, but with this turn it came from elsewhere; and another text that this turn had from here.
    elsewhere = make_turn(bot, question="From elsewhere?", contexts=[FEES])
    elsewhere.retrievals.update(own_source="copy.md")
    third = make_turn(bot, question="From here?", contexts=[METERS])
    third.retrievals.update(own_source="fees.md")
    stranger = make_assistant("other", members={"admin": [make_user("sam")]})
    make_turn(stranger, question="Of others?", contexts=[FEES])

    assert set(Turn.objects.of(bot).that_used(bot.pk, "fees.md")) == {first, second, third}
    client = enter("ada")
    shown = text(client, page)
    assert "3 turns" in shown
    assert "in 2 it came first" in shown
    address = f"{reverse(LIST)}?document={document.pk}"
    assert address in shown
    listed = text(client, address)
    for question, there in {"What is the exit fee?": 1, "When do I read it?": 1, "From here?": 1, "Only meters?": 0,
                            "From elsewhere?": 0, "Of others?": 0}.items():  # fmt: skip
        assert (question in listed) == bool(there), question
    assert "fees.md" in listed  # the filter says what it filters by
    for _ in range(8):
        make_turn(bot, contexts=[FEES, METERS])
    text(client, page)
    with django_assert_max_num_queries(18):
        text(client, page)


def test_who_sees_no_log_sees_no_counts_and_filters_nothing_foreign(bot: Assistant, document: Document) -> None:
    make_turn(bot, question="What is the exit fee?", contexts=[FEES])
    page = reverse(PAGE, args=[document.pk])
    assert "1 turn</a>" in text(enter("rob"), page)
    make_assistant("other", members={"admin": [make_user("sam")]})
    for name in ("ann", "sam"):
        answer = enter(name).get(page)
        assert answer.status_code in (302, 403, 404)
    assert Client().get(page).status_code == 302
    # A document that one may not know of filters nothing, and its path is not told.
    listed = text(enter("sam"), f"{reverse(LIST)}?document={document.pk}")
    assert "fees.md" not in listed
    assert "What is the exit fee?" not in listed
    for wrong in ("x", "0", "9" * 30, "1%00"):
        text(enter("ada"), f"{reverse(LIST)}?document={wrong}")

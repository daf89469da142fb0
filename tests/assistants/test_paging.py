"""Lists are counted to a limit: what they say of their rows is true on both sides of it."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.models import AuditEvent
from assistants.paging import COUNTED
from capture.models import Conversation, Turn
from tests.factories import make_assistant, make_conversation, make_user

pytestmark = pytest.mark.django_db


def shown(client: Client, address: str) -> str:
    page = client.get(address)
    assert page.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", page.content.decode()).split())


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(make_user("root", superuser=True))
    return client


def note(n: int, action: str = "label.given") -> None:
    AuditEvent.objects.bulk_create(AuditEvent(actor_name="ada", action=action, target=str(one)) for one in range(n))


AUDIT = "admin:assistants_auditevent_changelist"


def test_more_than_are_counted_are_called_more(root: Client) -> None:
    note(COUNTED + 1)
    page = shown(root, reverse(AUDIT))
    assert "more than 10,000 audit events: these pages are the first 10,000, filters find the others" in page
    assert "Show all" not in page
    last = shown(root, reverse(AUDIT) + "?p=200")
    assert "more than 10,000 audit events" in last
    beyond = root.get(reverse(AUDIT) + "?p=201")
    assert (beyond.status_code, beyond["Location"].endswith("?e=1")) == (302, True)
    # Where a filter leaves too many as well, nothing says how many either.
    assert "Show all" not in shown(root, reverse(AUDIT) + "?q=ada")
    assert "more than 10,000" in shown(root, reverse(AUDIT) + "?q=ada")


def test_exactly_as_many_as_are_counted_are_counted(root: Client) -> None:
    note(COUNTED)
    page = shown(root, reverse(AUDIT))
    assert "10,000 audit events" in page
    assert "more than" not in page
    assert "10,000+" not in page


def test_a_filter_says_how_many_it_leaves_and_how_to_be_rid_of_it(root: Client) -> None:
    note(1_200)
    note(1, "key.created")
    everything = shown(root, reverse(AUDIT))
    assert "- 1,201 audit events" in everything
    assert "Show all" not in everything  # nothing is filtered
    assert "1,200 results ( Show all )" in shown(root, reverse(AUDIT) + "?q=label")
    assert "1 result ( Show all )" in shown(root, reverse(AUDIT) + "?action=key.created")


def test_all_are_chosen_as_so_many_or_more(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action on all of them means all, also those that were not counted."""
    monkeypatch.setattr("assistants.paging.COUNTED", 60)
    assistant = make_assistant()
    talk = make_conversation(assistant)
    Turn.objects.bulk_create(
        Turn(
            assistant=assistant,
            conversation=talk,
            client_id=str(n),
            question="Q",
            response="A",
            asked_at=timezone.now(),
        )
        for n in range(80)
    )
    page = shown(root, reverse("admin:capture_turn_changelist"))
    assert "Select all 60+ turns" in page
    assert "All 60+ selected" in page


def test_every_list_is_counted_to_the_limit(root: Client) -> None:
    assistant = make_assistant()
    talks = (Conversation(assistant=assistant, external_id=str(n)) for n in range(COUNTED + 1))
    Conversation.objects.bulk_create(talks)
    assert "more than 10,000 conversations" in shown(root, reverse("admin:capture_conversation_changelist"))


def test_deep_pages_hold_the_rows_that_come_there(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read by their keys: the same rows in the same order, filtered or not, in one statement more."""
    note(130)
    note(5, "key.created")
    monkeypatch.setattr("assistants.admin.AuditEventAdmin.list_per_page", 10)

    def targets(page: int, deep: int, **query: str) -> list[str]:
        monkeypatch.setattr("assistants.paging.DEEP", deep)
        answer = root.get(reverse(AUDIT), {"p": page, **query})
        return [row.target for row in answer.context["cl"].result_list]

    for query in ({}, {"q": "label"}, {"o": "-2.1"}):
        for page in (2, 12, 13):
            assert targets(page, 0, **query) == targets(page, 1_000, **query) != [], (query, page)

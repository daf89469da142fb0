"""The filter by time of long lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from assistants.models import Assistant
from assistants.when import MONTHS, when
from capture.models import Turn
from tests.factories import make_assistant, make_turn, make_user

pytestmark = pytest.mark.django_db

TURNS = "admin:capture_turn_changelist"


@pytest.fixture
def alice(client: Client) -> User:
    alice = make_user("alice")
    client.force_login(alice)
    return alice


def ask(assistant: Assistant, moment: datetime, question: str) -> Turn:
    turn = make_turn(assistant, question=question)
    Turn.objects.filter(pk=turn.pk).update(asked_at=moment)
    return turn


def listed(client: Client, **query: str) -> set[str]:
    answer = client.get(reverse(TURNS), query)
    assert answer.status_code == 200
    return {turn.question for turn in answer.context["cl"].result_list}


def test_days_and_months_choose_what_was_asked_then(client: Client, alice: User) -> None:
    assistant = make_assistant(members={"admin": [alice]})
    ask(assistant, timezone.now() - timedelta(hours=2), "today")
    ask(assistant, timezone.now() - timedelta(days=5), "this week")
    ask(assistant, datetime(2024, 12, 1, tzinfo=UTC), "first of December")
    ask(assistant, datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC), "last of December")
    ask(assistant, datetime(2025, 1, 1, tzinfo=UTC), "January")
    assert listed(client, when="1d") == {"today"}
    assert listed(client, when="7d") == {"today", "this week"}
    assert listed(client, when="2024-12") == {"first of December", "last of December"}
    assert listed(client, when="2025-01") == {"January"}
    everything = listed(client)
    assert len(everything) == 5
    for wrong in ("2024-13", "1999-01", "7", "2024-12-01", "x' OR 1=1", "\x00"):
        assert listed(client, when=wrong) == everything


def test_its_choices_ask_the_database_nothing(rf: Any) -> None:
    request = rf.get("/")
    with CaptureQueriesContext(connection) as asked:
        chosen = when("asked_at", "asked")(request, {}, Turn, None)  # type: ignore[arg-type]
    assert not asked.captured_queries
    assert len(chosen.lookup_choices) == MONTHS + 4
    months = [value for value, _ in chosen.lookup_choices if value[:2] == "20"]
    assert months[0] == f"{timezone.localtime():%Y-%m}"
    assert months == sorted(months, reverse=True)


@pytest.mark.parametrize(
    "name",
    [
        "assistants_auditevent",
        "annotations_annotation",
        "annotations_machinelabel",
        "serving_promotion",
        "capture_turn",
    ],
)
def test_no_long_list_reads_all_its_days(client: Client, alice: User, name: str) -> None:
    make_turn(make_assistant(members={"admin": [alice]}))
    with CaptureQueriesContext(connection) as asked:
        answer = client.get(reverse(f"admin:{name}_changelist"), {"when": "30d"})
    assert answer.status_code == 200
    assert "Last 30 days" in answer.content.decode()
    statements = [query["sql"].casefold() for query in asked.captured_queries]
    assert not [one for one in statements if 'min("' in one or "date_trunc" in one]

"""Old turns go when an assistant says so, and nothing that people have worked on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import OuterRef
from django.utils import timezone
from django_q.models import OrmQ

from annotations.comparing.models import ComparisonPair, ComparisonRound
from annotations.models import Annotation
from assistants.models import Assistant, AuditEvent
from capture import erasing
from capture.models import Conversation, Passage, Receipt, Retrieval, Turn
from serving import jobs, retention
from tests.factories import (
    make_assistant,
    make_conversation,
    make_queue,
    make_retrieval,
    make_turn,
    make_user,
)
from training.models import DatasetVersion, Example

NOW = timezone.now()


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant("helpdesk", keep_turns_days=30)


def old_turn(assistant: Assistant, days: int = 40, **fields: object) -> Turn:
    return make_turn(assistant, asked_at=timezone.now() - timedelta(days=days), **fields)


def test_old_conversations_go_with_their_passages_and_their_ids_stay_known(assistant: Assistant) -> None:
    gone = old_turn(assistant, client_id="old-1")
    Receipt.objects.create(assistant=assistant, client_id="old-1", payload_digest="d")
    make_retrieval(gone, rank=9, text="Only there.")
    young = old_turn(assistant, days=20)
    assert retention.forget_old() == ({"helpdesk": 1}, None)
    assert list(Turn.objects.all()) == [young]
    assert list(Conversation.objects.all()) == [young.conversation]
    assert not Passage.objects.filter(text="Only there.").exists()
    assert not Receipt.objects.filter(client_id="old-1").exists()
    assert Receipt.objects.filter(assistant=assistant, payload_digest="d").exists()
    event = AuditEvent.objects.get(action="turns.forgotten")
    assert event.details["turns"] == 1
    assert retention.forget_old() == ({}, None)


def test_a_conversation_that_goes_on_is_kept_whole(assistant: Assistant) -> None:
    conversation = make_conversation(assistant)
    old_turn(assistant, conversation=conversation)
    old_turn(assistant, days=1, conversation=conversation)
    assert retention.forget_old() == ({}, None)


def test_what_people_have_worked_on_stays(assistant: Assistant) -> None:
    labelled, queued = old_turn(assistant), old_turn(assistant)
    beside = old_turn(assistant, conversation=labelled.conversation)
    Annotation.objects.create(turn=labelled, annotator=make_user("ann"), verdict="good")
    make_queue(assistant, turns=[queued])
    compared = old_turn(assistant)
    pairs = ComparisonRound.objects.create(
        assistant=assistant, name="Live", source="experiment", source_id=1, candidate_arm="a", baseline_arm="b",
        questions=1, differing=1, seed=7,
    )  # fmt: skip
    ComparisonPair.objects.create(round=pairs, position=1, key=str(compared.pk), turn=compared, question="?")
    old_turn(assistant)
    assert retention.forget_old() == ({"helpdesk": 1}, None)
    assert set(Turn.objects.all()) == {labelled, queued, beside, compared}


def test_who_labels_while_it_runs_loses_nothing(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [old_turn(assistant) for _ in range(3)]
    ann, erase = make_user("ann"), retention.erase_turns

    def erased(assistant: Assistant, keys: Sequence[UUID]) -> Counter[str]:
        if not Annotation.objects.exists():
            left = next(turn for turn in turns if turn.pk not in keys)
            Annotation.objects.create(turn=left, annotator=ann, verdict="good")
        return erase(assistant, keys)

    monkeypatch.setattr(retention, "MOST_TURNS", 1)
    monkeypatch.setattr(retention, "erase_turns", erased)
    assert retention.forget_old_of(assistant) == (2, None)
    assert Turn.objects.get().annotations.count() == 1


def test_assistants_that_keep_everything_lose_nothing(db: None) -> None:
    old_turn(make_assistant("for-ever"), days=4000)
    assert retention.forget_old() == ({}, None)


def test_many_pages_and_a_stop_in_between(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    monkeypatch.setattr(retention, "MOST_TURNS", 1)
    kept = old_turn(assistant, days=50)
    make_queue(assistant, turns=[kept])
    turns = [old_turn(assistant, days=40 - n % 3) for n in range(7)]
    make_turn(assistant)
    gone, rest = retention.forget_old(seconds=0.0)
    assert gone == {"helpdesk": 1}  # of the first page: one stays
    assert rest is not None
    assert rest.assistant == assistant.pk
    seen = 1
    while rest is not None:
        gone, rest = retention.forget_old(rest, seconds=0.0)
        seen += sum(gone.values())
    assert seen == len(turns)
    assert Turn.objects.count() == 2
    assert AuditEvent.objects.filter(action="turns.forgotten").count() >= 3


def test_a_conversation_longer_than_a_lot_is_finished_by_the_next_job(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MOST_TURNS", 2)
    conversation = make_conversation(assistant)
    for _ in range(5):
        old_turn(assistant, conversation=conversation)
    gone, rest = retention.forget_old(seconds=0.0)
    assert gone == {"helpdesk": 2}
    assert rest is not None
    while rest is not None:
        gone, rest = retention.forget_old(rest, seconds=0.0)
    assert not Turn.objects.exists()
    assert not Conversation.objects.exists()


def test_what_a_frozen_dataset_was_made_of_stays_though_its_verdict_is_gone(assistant: Assistant) -> None:
    """Or an erasure would not find the rows."""
    turn = old_turn(assistant)
    dataset = DatasetVersion.objects.create(assistant=assistant, number=1, prompt_digest="0", rows=1, state="succeeded")
    example = Example.objects.create(
        dataset=dataset, position=0, split="train", origin="good", kind="answer", turn=turn
    )
    assert retention.forget_old() == ({}, None)
    example.refresh_from_db()
    assert example.turn == turn


def test_the_job_goes_on_behind_what_waits_and_is_relieved_after_a_day(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE", 1)
    monkeypatch.setattr(retention.forget_old, "__kwdefaults__", {"seconds": 0.0})
    for _ in range(3):
        old_turn(assistant)
    assert jobs.forget_old_turns() == {"helpdesk": 1}
    (waiting,) = OrmQ.objects.all()
    assert waiting.func() == "serving.jobs.forget_old_turns"
    arguments = waiting.task["args"]
    assert jobs.forget_old_turns(*arguments) == {"helpdesk": 1}
    late = (timezone.now() - timedelta(days=2)).isoformat()
    assert jobs.forget_old_turns(late, *arguments[1:]) == {}
    assert Turn.objects.count() == 1


def test_a_page_is_found_along_the_index_of_times_in_as_many_statements_whatever_there_is(
    assistant: Assistant, django_assert_num_queries: Any
) -> None:
    for _ in range(4):
        make_queue(assistant, turns=[old_turn(assistant)])
    with django_assert_num_queries(3):  # turns, which of their conversations may go, and that there are no more
        assert [page.due for page in retention.pages(assistant)] == [[]]
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
    limit = retention.forgotten_before(assistant)
    old = Turn.objects.of(assistant).filter(asked_at__lt=limit).order_by("asked_at", "id")
    assert "Index Scan Backward using turn_newest on" in old[:10].explain()


def test_whether_a_passage_is_used_is_looked_up_and_not_joined(assistant: Assistant) -> None:
    """Of a join the planner made a walk through all retrievals: seven seconds for a lot of 500 turns among 10⁶."""
    rows = Retrieval.objects.filter(passage=OuterRef("pk"))
    plan = erasing._without(Passage.objects.filter(pk__in=[1, 2]), rows).explain()
    assert "SubPlan" in plan
    assert "Join" not in plan


@pytest.mark.django_db(transaction=True)
def test_who_stores_a_turn_with_the_same_passage_does_not_wait() -> None:
    """What many turns share is not locked while some of them go; what is alone goes all the same."""
    assistant = make_assistant("helpdesk")
    old, young = old_turn(assistant), make_turn(assistant)
    for turn in (old, young):
        shared = make_retrieval(turn, rank=5, text="Shared.").passage
    make_retrieval(old, rank=6, text="Only there.")
    place = {key: connection.get_connection_params()[key] for key in ("host", "port", "user", "password", "dbname")}
    with transaction.atomic():
        erasing.erase_turns(assistant, [old.pk])
        with psycopg.connect(**place) as other:
            other.execute("SELECT 1 FROM capture_passage WHERE id = %s FOR KEY SHARE NOWAIT", [shared.pk])
    assert set(Passage.objects.filter(text__in=["Shared.", "Only there."])) == {shared}


def test_the_command_counts_by_month_and_deletes(assistant: Assistant) -> None:
    make_queue(assistant, turns=[old_turn(assistant)])
    gone = old_turn(assistant)
    make_turn(assistant)

    def said(*arguments: str) -> str:
        out = StringIO()
        call_command("forget_turns", *arguments, stdout=out)
        return out.getvalue()

    counted = said("--dry-run")
    assert re.search(rf"{gone.asked_at:%Y-%m} +1 go +1 stay", counted)
    assert "in all              1 go             1 stay" in counted
    assert Turn.objects.count() == 3
    assert "in all              0 go             0 stay" in said("--dry-run", "--days", "20000")
    assert "helpdesk: 1 turns went" in said("--assistant", "helpdesk")
    assert not Turn.objects.filter(pk=gone.pk).exists()
    with pytest.raises(CommandError, match="no assistant"):
        said("--assistant", "none")
    with pytest.raises(CommandError, match="--dry-run"):
        said("--days", "3")
    Assistant.objects.update(keep_turns_days=None)
    with pytest.raises(CommandError, match="for ever"):
        said()

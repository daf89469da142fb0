"""Old turns go when an assistant says so, and nothing that people have worked on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from annotations.comparing.models import ComparisonPair, ComparisonRound
from annotations.models import Annotation
from assistants.models import Assistant, AuditEvent
from capture.models import Conversation, Passage, Receipt, Turn
from serving import retention
from tests.factories import make_assistant, make_conversation, make_queue, make_retrieval, make_turn, make_user

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
    assert retention.forget_old() == {"helpdesk": 1}
    assert list(Turn.objects.all()) == [young]
    assert list(Conversation.objects.all()) == [young.conversation]
    assert not Passage.objects.filter(text="Only there.").exists()
    assert not Receipt.objects.filter(client_id="old-1").exists()
    assert Receipt.objects.filter(assistant=assistant, payload_digest="d").exists()
    event = AuditEvent.objects.get(action="turns.forgotten")
    assert event.details["turns"] == 1
    assert retention.forget_old() == {}


def test_a_conversation_that_goes_on_is_kept_whole(assistant: Assistant) -> None:
    conversation = make_conversation(assistant)
    old_turn(assistant, conversation=conversation)
    old_turn(assistant, days=1, conversation=conversation)
    assert retention.forget_old() == {}


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
    assert retention.forget_old() == {"helpdesk": 1}
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
    assert retention.forget_old_of(assistant) == 2
    assert Turn.objects.get().annotations.count() == 1


def test_assistants_that_keep_everything_lose_nothing(db: None) -> None:
    old_turn(make_assistant("for-ever"), days=4000)
    assert retention.forget_old() == {}


def test_many_batches_and_a_stop_in_between(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "MOST_TURNS", 1)
    for _ in range(5):
        old_turn(assistant)
    monkeypatch.setattr(retention, "SECONDS", 0.0)
    assert retention.forget_old_of(assistant) == 0
    monkeypatch.setattr(retention, "SECONDS", 60.0)
    assert retention.forget_old_of(assistant) == 5

"""The figures of the agreement page, which come from sums, are those that each label counted by itself gives."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from annotations.agreement import Estimate, agreement_on
from annotations.models import Annotation, ContextMark, Queue, Reason
from annotations.trust import columns as columns_module
from annotations.trust import measures
from annotations.trust.columns import read_columns
from annotations.trust.of_queue import agreement_of, alpha_on_verdicts
from annotations.trust.questions import BY_KEY, QUESTIONS, RELEVANCE, VERDICT
from annotations.trust.rows import MAX_LABELS, Scope
from assistants.models import Assistant
from capture.models import Retrieval, Turn
from tests.annotations import slow_agreement as slow
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
TURNS = 40
PEOPLE = 5


@pytest.fixture(params=[1, 2])
def drawn(request: pytest.FixtureRequest) -> tuple[Assistant, Queue]:
    """Turns with up to five labels each, of people who agree more or less, over ten weeks, in two queues or in none."""
    chance = random.Random(request.param)
    assistant = make_assistant()
    people = [make_user(f"p{n}") for n in range(PEOPLE)]
    turns = [make_turn(assistant, question=f"Q {n}", declined=chance.random() < 0.2) for n in range(TURNS)]
    queues = [make_queue(assistant, turns=turns[::2], labels_needed=2), make_queue(assistant, labels_needed=2), None]
    now = timezone.now()
    for turn in turns:
        likely = chance.choice((0.1, 0.5, 0.9))
        for person in chance.sample(people, chance.randint(0, PEOPLE)):
            bad = chance.random() < likely
            label = Annotation.objects.create(
                turn=turn, queue=chance.choices(queues, (3, 1, 1))[0], annotator=person,
                verdict="bad" if bad else "good", seconds=chance.choice((None, chance.uniform(1, 90))),
                reasons=[one.value for one in Reason if bad and chance.random() < likely / 2] or ["wrong"] * bad,
                withdrawn_at=now if chance.random() < 0.05 else None,
            )  # fmt: skip
            Annotation.objects.filter(pk=label.pk).update(created_at=now - timedelta(hours=chance.randint(0, 1700)))
            for passage in Retrieval.objects.filter(turn=turn):
                word = chance.choices(("relevant", "not_relevant", "unsure"), (likely, 1 - likely, 0.1))[0]
                ContextMark.objects.create(annotation=label, retrieval=passage, relevance=word)
    return assistant, queues[0] or make_queue(assistant)


def near(found: Estimate) -> Any:
    def told(value: float | None) -> Any:
        return None if value is None else pytest.approx(value, abs=1e-9)

    return Estimate(told(found.value), told(found.low), told(found.high), found.n)


@pytest.mark.parametrize("most", [MAX_LABELS, 50])
def test_sums_say_what_labels_say(drawn: tuple[Assistant, Queue], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "MAX_LABELS", most)
    assistant, queue = drawn
    for scope in (Scope(assistant), Scope(assistant, queue=queue)):
        labels, columns = slow.given(scope, most), read_columns(scope)
        assert len(columns) == len(labels) > 30
        for line, right in zip(measures.overview(columns), slow.overview(labels), strict=True):
            assert line.percent == near(right.percent), line.question.key
            assert line.alpha == near(right.alpha), line.question.key
            assert line.kappas == pytest.approx(right.kappas, abs=1e-9), line.question.key
        for question in QUESTIONS:
            weeks = measures.by_week(question, columns)
            shown = {week.monday: week.alpha for week in weeks if week.alpha.value is not None}
            assert shown == {monday: near(alpha) for monday, alpha in slow.by_week(question, labels).items()}
            split = [columns.key(turn) for turn in measures.disagreements(question, columns)]
            assert split == slow.disagreements(question, labels), question.key
            table = measures.matrix(question, columns)
            right = agreement_on("", slow.labels_on(question, labels))
            assert [(pair.first, pair.second) for pair in table.pairs] == [(p.first, p.second) for p in right.pairs]
            for pair, other in zip(table.pairs, right.pairs, strict=True):
                assert (pair.percent, pair.kappa) == (near(other.percent), near(other.kappa))
        found = [(row.turn, row.seconds) for row in measures.slowest(columns)]
        assert found == slow.slowest(labels, measures.SLOWEST)


def test_a_queue_says_what_its_labels_say(drawn: tuple[Assistant, Queue]) -> None:
    assistant, queue = drawn
    labels = slow.given(Scope(assistant, queue=queue), MAX_LABELS)
    for question, found in zip((VERDICT, RELEVANCE), agreement_of(queue), strict=True):
        right = agreement_on("", slow.labels_on(question, labels))
        assert (found.percent, found.alpha, found.left_out) == (near(right.percent), near(right.alpha), 0)
    assert alpha_on_verdicts(queue) == agreement_of(queue)[0].alpha


def test_those_with_most_labels_are_compared(drawn: tuple[Assistant, Queue], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MAX_PEOPLE", 3)
    assistant, _ = drawn
    labels, columns = slow.given(Scope(assistant), MAX_LABELS), read_columns(Scope(assistant))
    table = measures.matrix(BY_KEY["declining"], columns)
    assert (list(table.people), table.left_out) == (slow.busiest(labels, 3), PEOPLE - 3)


def test_without_labels_nothing_is_said() -> None:
    columns = read_columns(Scope(make_assistant()))
    assert all(line.alpha == Estimate(None, None, None, 0) for line in measures.overview(columns))
    for question in (VERDICT, RELEVANCE):
        assert measures.matrix(question, columns).pairs == measures.by_week(question, columns) == ()
        assert not len(measures.disagreements(question, columns))
    assert measures.slowest(columns) == []


def test_a_key_that_ends_in_zeros_is_the_same_key() -> None:
    assistant, key = make_assistant(), uuid.UUID("12345678-1234-4234-8234-123456780000")
    Turn.objects.filter(pk=make_turn(assistant, contexts=(), citations=()).pk).update(id=key)
    Annotation.objects.create(turn_id=key, annotator=make_user("ann"), verdict="good", seconds=3)
    assert [row.turn for row in measures.slowest(read_columns(Scope(assistant)))] == [key]

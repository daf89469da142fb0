"""The agreement page: what it says of labels, who may see it, and what it costs."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations.gold import mark_gold
from annotations.models import Annotation, GoldItem, Queue, QueueItem
from annotations.services import adjudicate, submit, undo_last
from annotations.trust import measures
from annotations.trust.accuracy import accuracy
from annotations.trust.columns import Columns, read_columns
from annotations.trust.questions import BY_KEY, RELEVANCE, VERDICT, Question
from annotations.trust.rows import Scope
from assistants.models import Assistant
from capture.models import Turn
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
PAGE = "annotations:agreement"


@pytest.fixture
def people() -> dict[str, User]:
    return {name: make_user(name) for name in ("ann", "bob", "rae")}


@pytest.fixture
def assistant(people: dict[str, User]) -> Assistant:
    return make_assistant("house", members={"annotator": [people["ann"], people["bob"]], "reviewer": [people["rae"]]})


@pytest.fixture
def turns(assistant: Assistant) -> list[Turn]:
    return [make_turn(assistant, question=f"Question {i}", declined=i == 3) for i in range(4)]


@pytest.fixture
def queue(assistant: Assistant, turns: list[Turn], people: dict[str, User]) -> Queue:
    """Ann finds all good. Bob: good, wrong, should have declined, and on the declined one should have answered."""
    queue = make_queue(assistant, turns=turns, labels_needed=2)
    for turn in turns:
        submit(turn=turn, annotator=people["ann"], verdict="good", queue=queue, seconds=10, marks={1: "relevant"})
    said: tuple[tuple[str, list[str]], ...] = (
        ("good", []), ("bad", ["wrong"]), ("bad", ["should_have_declined"]), ("bad", ["should_have_answered"]),
    )  # fmt: skip
    for i, (turn, (verdict, reasons)) in enumerate(zip(turns, said, strict=True)):
        marks = {1: "not_relevant" if i == 2 else "relevant", 2: "unsure"}
        submit(
            turn=turn, annotator=people["bob"], verdict=verdict, reasons=reasons, queue=queue, seconds=20 + i,
            marks=marks,
        )  # fmt: skip
    return queue


def split(columns: Columns, question: Question) -> list[uuid.UUID]:
    return [columns.key(turn) for turn in measures.disagreements(question, columns)]


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_every_question_is_measured(assistant: Assistant, queue: Queue, turns: list[Turn]) -> None:
    rows = read_columns(Scope(assistant))
    found = {line.question.key: line for line in measures.overview(rows)}
    assert (found["verdict"].percent.value, found["verdict"].percent.n) == (0.25, 4)
    assert found["verdict"].kappas == (0.0,)
    # Declining: no/no, no/no (wrong does not ask for declining), no/yes, yes/no
    assert found["declining"].percent.value == 0.5
    assert found["reason-wrong"].percent.value == 0.75
    assert found["reason-tone"].alpha.value is None  # nobody named it: nothing to tell agreement from chance by
    assert (found["relevance"].percent.value, found["relevance"].percent.n) == (0.75, 4)
    assert set(found) == set(BY_KEY)
    assert set(split(rows, VERDICT)) == {turn.pk for turn in turns[1:]}
    assert split(rows, RELEVANCE) == [turns[2].pk]
    assert [slow.seconds for slow in measures.slowest(rows)] == [23, 22, 21, 20]


def test_filters_choose_labels(assistant: Assistant, queue: Queue, people: dict[str, User], turns: list[Turn]) -> None:
    other = make_queue(assistant)
    today = timezone.localdate()
    Annotation.objects.filter(turn=turns[0]).update(created_at=timezone.now() - timedelta(days=30))
    assert len(read_columns(Scope(assistant, queue=other))) == 0
    assert len(read_columns(Scope(assistant, since=today))) == 6
    assert len(read_columns(Scope(assistant, until=today - timedelta(days=7)))) == 2
    only_bob = read_columns(Scope(assistant, people=(people["bob"].pk,)))
    assert only_bob.names == ("bob",)
    assert not len(read_columns(Scope(make_assistant())))
    weeks = measures.by_week(VERDICT, read_columns(Scope(assistant)))
    assert [week.labels for week in weeks] == [2, 6]
    assert weeks[1].alpha.n == 3


def test_what_its_author_replaced_is_not_measured(queue: Queue, assistant: Assistant, people: dict[str, User]) -> None:
    turn = Turn.objects.get(question="Question 1")
    submit(turn=turn, annotator=people["bob"], verdict="good", queue=queue)
    assert len(read_columns(Scope(assistant))) == 8
    assert turn.pk not in split(read_columns(Scope(assistant)), VERDICT)


def test_accuracy_on_known_answers_and_under_review(
    assistant: Assistant, queue: Queue, people: dict[str, User], turns: list[Turn]
) -> None:
    rae, cy = people["rae"], make_user("cy")
    adjudicate(turn=turns[1], reviewer=rae, verdict="bad", reasons=["wrong"], response="")
    adjudicate(turn=turns[2], reviewer=rae, verdict="good", reasons=[], response="")
    mark_gold(item=QueueItem.objects.get(queue=queue, turn=turns[0]), reviewer=rae)
    submit(turn=turns[0], annotator=cy, verdict="bad", reasons=["tone"], queue=queue)
    submit(turn=turns[1], annotator=rae, verdict="bad", reasons=["wrong"])  # her own word: not measured
    by_name = {row.name: row for row in accuracy(Scope(assistant))}
    assert (by_name["cy"].gold.value, by_name["cy"].gold.n) == (0.0, 1)
    # Ann and Bob labelled the first turn before it became an item with a known answer.
    assert [by_name[name].gold.n for name in ("ann", "bob", "rae")] == [0, 0, 0]
    assert [(by_name[name].reviewed.value, by_name[name].reviewed.n) for name in ("ann", "bob")] == [(0.5, 2), (0.5, 2)]
    assert by_name["rae"].reviewed.n == 0
    low, high = by_name["cy"].gold.low, by_name["cy"].gold.high
    assert low == 0.0
    assert high == pytest.approx(0.793, abs=0.001)  # Wilson, 0 of 1


def test_on_known_answers_the_first_label_is_measured(
    assistant: Assistant, people: dict[str, User], turns: list[Turn]
) -> None:
    ann, bob, rae, cy = (*people.values(), make_user("cy"))
    queue = make_queue(assistant, turns=turns, labels_needed=1)
    # Cy labelled this one before it was marked: neither this label nor a later one is measured.
    submit(turn=turns[0], annotator=cy, verdict="bad", reasons=["wrong"], queue=queue)
    for turn in turns[:3]:
        adjudicate(turn=turn, reviewer=rae, verdict="good", reasons=[], response="")
        mark_gold(item=QueueItem.objects.get(queue=queue, turn=turn), reviewer=rae)
    submit(turn=turns[0], annotator=cy, verdict="good", queue=queue)
    for person, verdicts in ((ann, ("bad", "good")), (bob, ("good", "bad"))):
        for turn in turns[:2]:  # a change of mind, which replaces
            for verdict in verdicts:
                reasons = ["wrong"] if verdict == "bad" else []
                submit(turn=turn, annotator=person, verdict=verdict, reasons=reasons, queue=queue)
    submit(turn=turns[2], annotator=ann, verdict="bad", reasons=["wrong"], queue=queue)
    undo_last(queue=queue, annotator=ann)
    submit(turn=turns[2], annotator=ann, verdict="good", queue=queue)
    by_name = {row.name: row for row in accuracy(Scope(assistant))}
    found = {name: (by_name[name].gold.value, by_name[name].gold.n) for name in ("ann", "bob", "cy")}
    assert found == {"ann": (0.0, 3), "bob": (1.0, 2), "cy": (None, 0)}
    assert by_name["ann"].labels == 3
    Annotation.objects.filter(annotator=ann).update(withdrawn_at=timezone.now())
    row = next(row for row in accuracy(Scope(assistant)) if row.name == "ann")
    assert (row.labels, row.gold.value, row.gold.n) == (0, 0.0, 3)
    assert accuracy(Scope(assistant, queue=make_queue(assistant))) == []


def test_the_page(queue: Queue, people: dict[str, User], turns: list[Turn]) -> None:
    rae = browser(people["rae"])
    page = rae.get(reverse(PAGE)).content.decode()
    item = QueueItem.objects.get(queue=queue, turn=turns[1])
    assert reverse("annotations:adjudicate", args=[queue.pk, item.pk]) in page
    assert "3 turns on which people differ" in page
    relevance = rae.get(reverse(PAGE), {"question": "relevance"}).content.decode()
    assert "1 turn on which people differ" in relevance
    odd = {
        "question": "<script>",
        "queue": "x",
        "since": "soon",
        "people": ["999"],
        "page": "-3",
        "assistant": "nobody",
    }
    answer = rae.get(reverse(PAGE), odd)
    assert answer.status_code == 200
    assert "Enter a valid date" in answer.content.decode()
    assert "<script>&" not in answer.content.decode()


def test_a_turn_in_no_queue_leads_to_its_page(assistant: Assistant, people: dict[str, User]) -> None:
    turn = make_turn(assistant)
    submit(turn=turn, annotator=people["ann"], verdict="good")
    submit(turn=turn, annotator=people["bob"], verdict="bad", reasons=["wrong"])
    page = browser(people["rae"]).get(reverse(PAGE)).content.decode()
    assert reverse("admin:capture_turn_change", args=[turn.pk]) in page


def test_nobody_else_gets_in(queue: Queue, people: dict[str, User]) -> None:
    carol = make_user("carol")
    make_assistant("other", members={"reviewer": [carol]})
    for name in ("ann", "bob"):
        assert browser(people[name]).get(reverse(PAGE)).status_code == 403
    assert Client().get(reverse(PAGE)).status_code == 302
    theirs = browser(carol).get(reverse(PAGE), {"assistant": "house", "queue": queue.pk}).content.decode()
    assert "Agreement: Other" in theirs
    assert "Question 1" not in theirs


def test_empty_says_what_fills_it(assistant: Assistant, people: dict[str, User]) -> None:
    page = browser(people["rae"]).get(reverse(PAGE)).content.decode()
    assert "Raise the labels needed" in page
    assert "Nobody has labelled here yet" in page


def test_the_number_of_queries_does_not_grow(assistant: Assistant, queue: Queue, people: dict[str, User]) -> None:
    client = browser(people["rae"])

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(reverse(PAGE)).status_code == 200
        return len(captured)

    few = queries()
    for i in range(8):
        turn = make_turn(assistant, question=f"More {i}")
        QueueItem.objects.create(queue=queue, turn=turn, labels_needed=2)
        for name in ("ann", "bob"):
            verdict = "good" if name == "ann" or i % 2 else "bad"
            submit(
                turn=turn, annotator=people[name], verdict=verdict, reasons=["wrong"] if verdict == "bad" else [],
                queue=queue, marks={1: "relevant"}, seconds=5,
            )  # fmt: skip
        if i < 3:
            adjudicate(turn=turn, reviewer=people["rae"], verdict="good", reasons=[], response="")
    mark_gold(item=QueueItem.objects.filter(queue=queue).latest("pk"), reviewer=people["rae"])
    assert GoldItem.objects.exists()
    assert queries() == few
    assert few < 25

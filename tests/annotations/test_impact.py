"""What somebody's labels changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations.impact import datasets_of, impact_of, labels_of
from annotations.models import Annotation, Queue
from annotations.services import adjudicate, submit, undo_last
from assistants.models import Assistant, AuditEvent
from capture.models import Turn
from tests.factories import make_assistant, make_queue, make_turn, make_user
from training.models import DatasetVersion, Example

pytestmark = pytest.mark.django_db
MINE = "annotations:mine"


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def rae() -> User:
    return make_user("rae")


@pytest.fixture
def assistant(ann: User, rae: User) -> Assistant:
    return make_assistant("brightwell", members={"annotator": [ann], "reviewer": [rae]})


@pytest.fixture
def queue(assistant: Assistant) -> Queue:
    return make_queue(assistant, turns=[make_turn(assistant, question=f"Question {i}?") for i in range(6)])


@pytest.fixture
def turns(queue: Queue) -> list[Turn]:
    return [item.turn for item in queue.items.select_related("turn").order_by("pk")]


def make_dataset(assistant: Assistant, number: int, turns: list[Turn], **fields: Any) -> DatasetVersion:
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=number, prompt_digest="0" * 16, **{"state": "succeeded", **fields}
    )
    for position, turn in enumerate(turns):
        Example.objects.create(
            dataset=dataset, position=position, split="train", origin="corrected", kind="answer", group="g",
            question=turn.question, turn=turn, digest="0",
        )  # fmt: skip
    return dataset


def page(user: User, name: str = MINE, *args: object, **query: str) -> Any:
    client = Client()
    client.force_login(user)
    return client.get(reverse(name, args=args), query)


def test_each_label_says_what_became_of_it(
    assistant: Assistant, queue: Queue, turns: list[Turn], ann: User, rae: User
) -> None:
    better = "A fixed plan has an exit fee of £35. [1]"
    submit(turn=turns[0], annotator=ann, verdict="good", queue=queue)
    submit(turn=turns[1], annotator=ann, verdict="bad", reasons=["wrong"], correction=better, queue=queue)
    submit(turn=turns[2], annotator=ann, verdict="good", queue=queue)
    adjudicate(turn=turns[2], reviewer=rae, verdict="bad", reasons=["tone"], response="")
    queue.items.filter(turn=turns[3]).update(labels_needed=2)
    submit(turn=turns[3], annotator=ann, verdict="good", queue=queue)
    submit(turn=turns[4], annotator=ann, verdict="good", queue=queue)
    submit(turn=turns[4], annotator=ann, verdict="bad", reasons=["tone"], queue=queue)
    submit(turn=turns[5], annotator=ann, verdict="good", queue=queue)
    undo_last(queue=queue, annotator=ann)

    found = impact_of(ann, [assistant])
    assert (found.labels, found.good, found.counts, found.overruled, found.waits) == (5, 3, 3, 1, 1)
    assert (found.corrections, found.adopted, found.replaced, found.taken_back) == (1, 1, 1, 1)
    states = [label.state for label in labels_of(ann, [assistant]).order_by("pk")]
    assert states == ["counts", "counts", "overruled", "waits", "replaced", "counts", "taken_back"]
    assert impact_of(rae, [assistant]).labels == 0
    assert impact_of(ann, []).labels == 0


def test_a_correction_that_lost_to_another_is_not_adopted(queue: Queue, turns: list[Turn], ann: User) -> None:
    queue.items.update(labels_needed=3)
    same = "A fixed plan has an exit fee of £35. [1]"
    submit(turn=turns[0], annotator=ann, verdict="bad", reasons=["wrong"], correction="It costs £35. [1]", queue=queue)
    for _ in range(2):
        submit(turn=turns[0], annotator=make_user(), verdict="bad", reasons=["wrong"], correction=same, queue=queue)
    found = impact_of(ann, [queue.assistant])
    assert (found.counts, found.corrections, found.adopted) == (1, 1, 0)


def test_rows_of_datasets_that_were_built_after_the_label(
    assistant: Assistant, queue: Queue, turns: list[Turn], ann: User, rae: User
) -> None:
    early = make_dataset(assistant, 1, turns[:2])
    for turn in turns[:3]:
        submit(turn=turn, annotator=ann, verdict="good", queue=queue)
    adjudicate(turn=turns[2], reviewer=rae, verdict="bad", reasons=["tone"], response="")
    later = make_dataset(assistant, 2, turns[:4])
    make_dataset(assistant, 3, turns[:4], state="failed")
    Example.objects.filter(dataset=later, turn=turns[1]).update(erased_at=later.created_at)
    rows = datasets_of(ann, [assistant])
    assert [(row.number, row.rows, row.corrected, row.declined) for row in rows] == [(2, 1, 1, 0)]
    Annotation.objects.update(created_at=early.created_at - timedelta(days=1))
    assert [row.number for row in datasets_of(ann, [assistant])] == [2, 1]


def test_the_page_for_oneself(assistant: Assistant, queue: Queue, turns: list[Turn], ann: User) -> None:
    empty = page(ann)
    assert "No labels yet." in empty.content.decode()
    for turn in turns[:2]:
        submit(turn=turn, annotator=ann, verdict="good", queue=queue)
    make_dataset(assistant, 7, turns[:2])
    html = page(ann).content.decode()
    assert "2 of 2 labels make the verdict that counts, and 2 rows of dataset 7 come from your work." in html
    assert "Question 0?" in html
    assert "No label fits" in page(ann, state="overruled").content.decode()
    assert page(ann, state="counts", assistant="brightwell", page="99").context["page"].paginator.count == 2
    assert page(ann, state="nonsense", assistant="nobody").context["page"].paginator.count == 0


def test_who_may_see_whose(assistant: Assistant, queue: Queue, turns: list[Turn], ann: User, rae: User) -> None:
    submit(turn=turns[0], annotator=ann, verdict="good", queue=queue)
    other = make_user()
    theirs = make_assistant(members={"reviewer": [other], "annotator": [ann]})
    assert page(rae, "annotations:of_person", ann.pk).context["impact"].labels == 1
    assert AuditEvent.objects.filter(action="labels.viewed", actor=rae, target="ann").exists()
    assert page(other, "annotations:of_person", ann.pk).status_code == 404  # ann has no labels with them
    submit(turn=make_turn(theirs), annotator=ann, verdict="good")
    assert page(other, "annotations:of_person", ann.pk).context["impact"].labels == 1  # of theirs only
    assert page(ann, "annotations:of_person", rae.pk).status_code == 404
    assert page(ann, "annotations:of_person", ann.pk).context["impact"].labels == 2
    assert page(make_user()).status_code == 403
    assert Client().get(reverse(MINE)).status_code == 302


def test_constant_number_of_queries(assistant: Assistant, queue: Queue, turns: list[Turn], ann: User) -> None:
    counts = []
    for n in (1, 5):
        for turn in turns[:n]:
            submit(turn=turn, annotator=ann, verdict="good", queue=queue)
        make_dataset(assistant, n, turns[:n])
        with CaptureQueriesContext(connection) as captured:
            assert page(ann).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1]

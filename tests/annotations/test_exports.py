"""Labels leave in the shapes of other tools: streamed, on record, and only for those who may."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotations import export
from annotations.export import export_lines
from annotations.export_shapes import argilla_pieces, label_studio_pieces, person_id
from annotations.models import Annotation, Queue
from annotations.services import submit
from assistants.models import Assistant, AuditEvent
from capture import export_guard
from capture.export_guard import ExportBlocked
from tests.annotations.streams import whole
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db
HISTORY = [{"role": "user", "content": "Is there a fee?"}, {"role": "assistant", "content": "For what?"}]


@pytest.fixture
def rae() -> User:
    return make_user("rae")


@pytest.fixture
def queue(rae: User) -> Queue:
    """Two turns: ann and bob differ on the first, ann alone has labelled the second and changed her mind."""
    ann, bob = make_user("ann"), make_user("bob")
    assistant = make_assistant(members={"annotator": [ann, bob], "reviewer": [rae]})
    turns = [make_turn(assistant, question='Why "£35"?', history=HISTORY), make_turn(assistant, question="And now?")]
    queue = make_queue(assistant, turns=turns, labels_needed=2)
    submit(turn=turns[0], annotator=ann, verdict="good", queue=queue, seconds=12.5, marks={1: "relevant", 2: "unsure"})
    submit(
        turn=turns[0], annotator=bob, verdict="bad", reasons=["incomplete", "tone"], correction="£35 per fuel. [1]",
        note="Both fuels.", queue=queue, marks={1: "relevant", 3: "not_relevant"},
    )  # fmt: skip
    submit(turn=turns[1], annotator=ann, verdict="good", queue=queue)
    submit(turn=turns[1], annotator=ann, verdict="bad", reasons=["wrong"], queue=queue)
    return queue


def browser(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def download(user: User, queue: Queue, shape: str) -> Any:
    return browser(user).get(reverse("admin:annotations_queue_export", args=[queue.pk]), {"format": shape})


def test_argilla_records(queue: Queue, rae: User) -> None:
    answer = download(rae, queue, "argilla")
    assert f'filename="queue-{queue.pk}.argilla.json"' in answer.headers["Content-Disposition"]
    records = {record["fields"]["question"]: record for record in json.loads(whole(answer))}
    assert len(records) == 2
    first = records['Why "£35"?']
    assert set(first) == {"id", "fields", "metadata", "suggestions", "responses", "vectors", "_server_id"}
    assert first["fields"]["history"] == HISTORY
    assert first["fields"]["contexts"].startswith("[1] Leaving early\nA fixed plan")
    ann, bob = str(person_id("ann")), str(person_id("bob"))
    said = first["responses"]
    assert said["verdict"] == [{"value": "good", "user_id": ann}, {"value": "bad", "user_id": bob}]
    assert said["reasons"] == [{"value": ["incomplete", "tone"], "user_id": bob}]
    assert said["correction"] == [{"value": "£35 per fuel. [1]", "user_id": bob}]
    assert said["relevant"] == [{"value": ["1"], "user_id": ann}, {"value": ["1"], "user_id": bob}]
    assert said["not_relevant"] == [{"value": ["3"], "user_id": bob}]
    assert records["And now?"]["responses"]["verdict"] == [{"value": "bad", "user_id": ann}]  # what counts, once


def test_label_studio_tasks(queue: Queue, rae: User) -> None:
    answer = download(rae, queue, "label-studio")
    tasks = {task["data"]["question"]: task for task in json.loads(whole(answer))}
    task = tasks['Why "£35"?']
    assert set(task) == {"data", "annotations", "predictions"}
    assert task["data"]["history"][0] == {"author": "user", "text": "Is there a fee?"}
    good, bad = task["annotations"]
    assert (good["was_cancelled"], good["ground_truth"], good["lead_time"]) == (False, False, 12.5)
    assert list(task["data"]["annotators"].values()) == ["ann", "bob"]
    assert "completed_by" not in bad  # Label Studio refuses people that it does not know
    values = {region["from_name"]: (region["type"], region["value"]) for region in bad["result"]}
    assert values["verdict"] == ("choices", {"choices": ["bad"]})
    assert values["reasons"] == ("choices", {"choices": ["incomplete", "tone"]})
    assert values["correction"] == ("textarea", {"text": ["£35 per fuel. [1]"]})
    assert {region["to_name"] for region in bad["result"]} == {"response"}
    assert bad["result_count"] == len(bad["result"]) == 6


def test_on_record_and_for_reviewers_only(queue: Queue, rae: User) -> None:
    for shape in ("argilla", "label-studio"):
        assert download(rae, queue, shape).status_code == 200
        assert download(User.objects.get(username="ann"), queue, shape).status_code == 403
    events = AuditEvent.objects.filter(action="annotations.exported").order_by("pk")
    assert [event.details["format"] for event in events] == ["argilla", "label-studio"]
    unknown = download(rae, queue, "csv<script>")
    assert unknown.status_code == 302
    assert events.count() == 2


def test_empty_and_batched(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Annotation.objects.none()
    assert json.loads("".join(argilla_pieces(nothing))) == []
    assert "".join(export_lines(nothing)) == ""
    every = Annotation.objects.filter(queue=queue)
    at_once = ["".join(shape(every)) for shape in (argilla_pieces, label_studio_pieces, export_lines)]
    monkeypatch.setattr(export, "TURNS_AT_ONCE", 1)
    monkeypatch.setattr(export, "LABELS_AT_ONCE", 1)
    one_by_one = ["".join(shape(every)) for shape in (argilla_pieces, label_studio_pieces, export_lines)]
    assert one_by_one == at_once


def test_a_guard_stops_every_shape(queue: Queue, rae: User) -> None:
    def refuse(_: Assistant, records: Sequence[Mapping[str, Any]]) -> None:
        raise ExportBlocked(f"{len(records)} records stay here.")

    export_guard.register(refuse)
    try:
        for shape in ("jsonl", "argilla", "label-studio"):
            assert download(rae, queue, shape).status_code == 302
    finally:
        export_guard.unregister(refuse)
    assert not AuditEvent.objects.filter(action="annotations.exported").exists()


def test_the_number_of_queries_does_not_grow(queue: Queue) -> None:
    every = Annotation.objects.filter(queue=queue)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert json.loads("".join(label_studio_pieces(every)))
        return len(captured)

    few = queries()
    ann = User.objects.get(username="ann")
    for _ in range(5):
        submit(turn=make_turn(queue.assistant), annotator=ann, verdict="good", marks={1: "relevant"})
    Annotation.objects.update(queue=queue)
    assert queries() == few

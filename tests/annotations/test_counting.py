"""Which labels count, and why, is said of every label that was ever given."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotations.models import Annotation, QueueItem, Resolution
from annotations.services import adjudicate, submit, undo_last
from annotations.trust.counting import standing, standings
from assistants.models import Assistant
from capture.models import Turn
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> list[User]:
    return [make_user(name) for name in ("ann", "bob", "cy", "rae")]


@pytest.fixture
def assistant(people: list[User]) -> Assistant:
    return make_assistant(members={"annotator": people[:3], "reviewer": people[3:]})


@pytest.fixture
def turn(assistant: Assistant) -> Turn:
    return make_turn(assistant)


def states(turn: Turn) -> list[tuple[str, str]]:
    found = standings(Resolution.objects.get(turn=turn))
    return [(label.annotator.get_username(), how.state) for label, how in found]


def test_majority_change_of_mind_and_undo(turn: Turn, people: list[User]) -> None:
    ann, bob, cy, _ = people
    queue = make_queue(turn.assistant, turns=[turn], labels_needed=3)
    submit(turn=turn, annotator=ann, verdict="bad", reasons=["wrong"], queue=queue)
    waiting = Annotation.objects.get()
    assert standing(waiting, None, ()).state == "waits"
    submit(turn=turn, annotator=ann, verdict="good", queue=queue)
    submit(turn=turn, annotator=bob, verdict="bad", reasons=["wrong"], queue=queue)
    submit(turn=turn, annotator=cy, verdict="bad", reasons=["tone"], queue=queue)
    undo_last(queue=queue, annotator=cy)
    submit(turn=turn, annotator=cy, verdict="good", queue=queue)
    assert states(turn) == [
        ("ann", "replaced"), ("ann", "counts"), ("bob", "outvoted"), ("cy", "taken back"), ("cy", "counts"),
    ]  # fmt: skip
    assert Annotation.objects.count() == 5  # nothing is lost


def test_under_a_reviewer(turn: Turn, people: list[User]) -> None:
    ann, bob, cy, rae = people
    submit(turn=turn, annotator=ann, verdict="good")
    submit(turn=turn, annotator=bob, verdict="bad", reasons=["wrong"])
    adjudicate(turn=turn, reviewer=rae, verdict="bad", reasons=["wrong"], response="")
    submit(turn=turn, annotator=cy, verdict="bad", reasons=["tone"])
    assert states(turn) == [("ann", "overruled"), ("bob", "counts"), ("cy", "late")]


def test_the_pages_say_so(turn: Turn, people: list[User]) -> None:
    ann, bob, _, rae = people
    queue = make_queue(turn.assistant, turns=[turn], labels_needed=2)
    submit(turn=turn, annotator=ann, verdict="bad", reasons=["tone"], queue=queue, note="<b>odd</b>")
    submit(turn=turn, annotator=ann, verdict="good", queue=queue)
    submit(turn=turn, annotator=bob, verdict="bad", reasons=["wrong"], correction="Nothing. [1]", queue=queue)
    client = Client()
    client.force_login(rae)
    item = QueueItem.objects.get()
    page = client.get(reverse("annotations:adjudicate", args=[queue.pk, item.pk])).content.decode()
    assert "1 earlier label, kept and not counted" in page
    assert "replaced by its author’s later label" in page
    assert page.count("Does not count: the turn has too few labels, or they disagree") == 2
    assert '<b class="lb-differs">Wrong</b>' in page
    adjudicate(turn=turn, reviewer=rae, verdict="bad", reasons=["wrong"], response="Nothing. [1]")
    page = client.get(reverse("annotations:adjudicate", args=[queue.pk, item.pk])).content.decode()
    assert "✓ Counts" in page
    assert "a reviewer decided otherwise" in page
    resolution = client.get(reverse("admin:annotations_resolution_change", args=[Resolution.objects.get().pk]))
    assert "bob: Bad · counts (a reviewer decided the same)" in resolution.content.decode()
    listed = client.get(reverse("admin:annotations_annotation_changelist")).content.decode()
    assert "overruled" in listed
    assert "replaced" in listed

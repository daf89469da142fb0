"""Labels and verdicts of an assistant are found by its queues, and those that are in none by their turns."""

from __future__ import annotations

import pytest

from annotations.models import Annotation, Resolution
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = pytest.mark.django_db


def test_labels_and_verdicts_are_their_assistants() -> None:
    ann = make_user("ann")
    expected: dict[int, list[object]] = {}
    for assistant in (make_assistant("bot"), make_assistant("other")):
        queued, alone = make_turn(assistant), make_turn(assistant)
        queue = make_queue(assistant, turns=[queued])
        for turn, of_queue in ((queued, queue), (alone, None)):
            Annotation.objects.create(turn=turn, queue=of_queue, annotator=ann, verdict="good")
            Resolution.objects.create(turn=turn, verdict="good", response="x", how="single")
        expected[assistant.pk] = sorted([queued.pk, alone.pk])
        for rows in (Annotation.objects.of(assistant), Resolution.objects.of(assistant)):
            assert sorted(rows.values_list("turn", flat=True)) == expected[assistant.pk]
    assert len(expected) == 2
    assert not Annotation.objects.of(make_assistant("third")).exists()
    assert not Resolution.objects.of(make_assistant("fourth")).exists()

"""Which turns a filled-in filter finds, and the orders in which they are taken."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from annotations import sampling
from annotations.choosing import Choice, choose
from annotations.groundedness import is_supported
from annotations.languages import language_of
from annotations.models import Queue
from annotations.sampling import boundary
from annotations.selection import TurnFilterForm
from assistants.errors import ApiError
from assistants.models import Assistant, AuditEvent
from capture.models import Turn
from knowledge.models import EMBEDDING_DIMENSION, Chunk
from tests.factories import make_assistant, make_document, make_feedback, make_queue, make_turn, make_user
from training.models import DatasetVersion, Example

pytestmark = pytest.mark.django_db
DAY = datetime(2026, 5, 1, 12, tzinfo=UTC)


def towards(*axes: float) -> list[float]:
    """A unit vector with these first coordinates."""
    vector = np.zeros(EMBEDDING_DIMENSION, dtype=np.float32)
    vector[: len(axes)] = axes
    return [float(value) for value in vector / np.linalg.norm(vector)]


@pytest.fixture
def assistant() -> Assistant:
    return make_assistant()


@pytest.fixture
def queue(assistant: Assistant) -> Queue:
    return make_queue(assistant)


def wanted(**given: Any) -> dict[str, Any]:
    form = TurnFilterForm({"order": "newest", "limit": "100", **given})
    assert form.is_valid(), form.errors
    return form.cleaned_data


def chosen(queue: Queue, **given: Any) -> list[UUID]:
    return list(choose(queue, wanted(**given)).turns)


def keys(turns: Sequence[Turn]) -> list[UUID]:
    return [turn.pk for turn in turns]


class TestFilters:
    def test_language_as_said_or_as_it_looks(self, queue: Queue) -> None:
        german = make_turn(queue.assistant, question="Was kostet die Kündigung?", response="Die Gebühr beträgt 35 €.")
        said = make_turn(queue.assistant, question="ok?", response="ok", metadata={"language": "de-AT"})
        english = make_turn(queue.assistant)
        assert set(chosen(queue, language="de")) == {german.pk, said.pk}
        assert chosen(queue, language="en") == [english.pk]

    def test_groundedness(self, queue: Queue) -> None:
        supported = make_turn(queue.assistant)
        wrong = make_turn(queue.assistant, response="The exit fee is £99. [1]", citations=())
        elsewhere = make_turn(queue.assistant, response="The exit fee is £35 for a fixed plan. [2]", citations=())
        uncited = make_turn(queue.assistant, response="It depends on many things.", citations=())
        make_turn(queue.assistant, response="I can't find that in the documents.", declined=True, citations=())
        assert chosen(queue, groundedness="supported") == [supported.pk]
        assert set(chosen(queue, groundedness="unsupported")) == {wrong.pk, elsewhere.pk, uncited.pk}
        assert chosen(queue, groundedness="uncited") == [uncited.pk]

    def test_near_an_example_in_order_and_down_to_a_similarity(self, queue: Queue) -> None:
        example = make_turn(queue.assistant, embedding=towards(1.0))
        near = make_turn(queue.assistant, embedding=towards(1.0, 0.3))
        nearest = make_turn(queue.assistant, embedding=towards(1.0, 0.1))
        make_turn(queue.assistant, embedding=towards(0.0, 1.0))
        make_turn(make_assistant(), embedding=towards(1.0))
        assert chosen(queue, near=str(example.pk), near_least="0.9", order="nearest") == keys([nearest, near])
        assert len(chosen(queue, near=str(example.pk), near_least="0", order="random")) == 3

    def test_an_example_of_somebody_else_is_none(self, queue: Queue) -> None:
        theirs = make_turn(make_assistant(), embedding=towards(1.0))
        with pytest.raises(ApiError, match="no such turn"):
            choose(queue, wanted(near=f"turn:{theirs.client_id}"))

    def test_new_topic_is_far_from_every_document(self, queue: Queue) -> None:
        document = make_document(queue.assistant)
        chunk = {"headings": [], "text": "x", "digest": "0", "tokens": 1, "sentence_embeddings": b""}
        for place, axis in enumerate(([1.0], [0.0, 1.0])):
            Chunk.objects.create(
                assistant=queue.assistant, document=document, position=place, embedding=towards(*axis), **chunk
            )
        make_turn(queue.assistant, embedding=towards(0.1, 1.0))
        new = make_turn(queue.assistant, embedding=towards(0.1, 0.1, 1.0))
        make_turn(queue.assistant)  # without a vector nobody can say
        assert chosen(queue, far_from="documents", far_most="0.4") == [new.pk]
        assert len(chosen(queue, far_from="documents", far_most="1")) == 2

    def test_new_topic_is_far_from_the_last_dataset(self, queue: Queue) -> None:
        assert chosen(queue, far_from="training", far_most="0.4") == []  # nothing was trained on yet
        old, seen = (make_turn(queue.assistant, embedding=towards(*axes)) for axes in ([1.0], [0.0, 1.0]))
        for number, turn in enumerate((old, seen), start=1):
            dataset = DatasetVersion.objects.create(
                assistant=queue.assistant, number=number, prompt_digest="0", rows=1, state="succeeded"
            )
            Example.objects.create(dataset=dataset, position=0, split="train", origin="good", kind="answer", turn=turn)
        assert chosen(queue, far_from="training", far_most="0.4") == [old.pk]

    def test_feedback_and_model_together_with_a_look(self, queue: Queue) -> None:
        down = make_turn(queue.assistant, model="m2")
        make_feedback(down, value=-1.0)
        make_feedback(make_turn(queue.assistant, model="m2"), value=1.0)
        make_turn(queue.assistant, model="base")
        assert chosen(queue, feedback="down", model="m2", language="en") == [down.pk]

    def test_what_is_in_the_queue_is_not_found_again(self, assistant: Assistant) -> None:
        inside = make_turn(assistant, embedding=towards(1.0))
        queue = make_queue(assistant, turns=[inside])
        outside = make_turn(assistant, embedding=towards(1.0, 0.1))
        assert chosen(queue, near=str(inside.pk), order="nearest") == [outside.pk]

    def test_the_count_says_how_many_were_looked_at(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sampling, "LOOKED_AT", 3)
        for _ in range(5):
            make_turn(queue.assistant)
        choice = choose(queue, wanted(language="en", limit="2"))
        assert choice == Choice(choice.turns, found=3, looked_at=3, of_more=True)
        assert len(choice.turns) == 2

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"order": "nearest"}, "order"),
            ({"far_from": "documents", "far_most": ""}, "far_most"),
            ({"near": "a\x00b"}, "near"),
            ({"near": "x" * 501}, "near"),
            ({"language": "xx"}, "language"),
            ({"limit": "10001"}, "limit"),
            ({"near_least": "2"}, "near_least"),
        ],
    )
    def test_bad_input_names_the_field(self, given: dict[str, str], field: str) -> None:
        form = TurnFilterForm({"order": "newest", "limit": "5", **given})
        assert not form.is_valid()
        assert field in form.errors

    def test_the_number_of_queries_does_not_grow(self, queue: Queue, django_assert_max_num_queries: Any) -> None:
        for i in range(30):
            make_turn(queue.assistant, embedding=towards(1.0, i / 10))
        with django_assert_max_num_queries(12):
            choose(queue, wanted(language="en", groundedness="supported", order="diverse"))
        with django_assert_max_num_queries(12):
            choose(queue, wanted(order="uncertain"))


class TestOrders:
    def test_newest_and_thumbs_down_first(self, queue: Queue) -> None:
        old, newer, newest = (make_turn(queue.assistant, asked_at=DAY + timedelta(days=n)) for n in range(3))
        make_feedback(old, value=-1.0)
        make_feedback(newest, value=1.0)
        assert chosen(queue, order="newest", limit="2") == keys([newest, newer])
        assert chosen(queue, order="down") == keys([old, newest, newer])

    def test_random_differs_from_time_to_time(self, queue: Queue) -> None:
        for _ in range(12):
            make_turn(queue.assistant, contexts=())
        assert len({tuple(chosen(queue, order="random")) for _ in range(6)}) > 1

    def test_stratified_takes_as_many_of_each_adapter(self, queue: Queue) -> None:
        for adapter, n in (("a", 9), ("b", 2), ("", 4)):
            for _ in range(n):
                make_turn(queue.assistant, contexts=(), adapter=adapter)
        got = Turn.objects.in_bulk(chosen(queue, order="stratified", limit="6"))
        assert sorted(turn.adapter for turn in got.values()) == ["", "", "a", "a", "b", "b"]

    def test_uncertain_is_where_answering_turns_into_declining(self, queue: Queue) -> None:
        def turn(similarity: float, declined: bool) -> Turn:
            context = {"text": "A fact.", "evidence": [[0, 0, similarity]]}
            return make_turn(queue.assistant, contexts=[context], declined=declined)

        for step in range(6):
            turn(0.30 + step / 100, True)
            turn(0.80 + step / 100, False)
        edge = [turn(0.55, True), turn(0.60, False)]
        torn = turn(0.99, False)
        make_feedback(torn, value=1.0)
        make_feedback(torn, value=-1.0)
        unknown = make_turn(queue.assistant, contexts=())
        got = chosen(queue, order="uncertain")
        assert got[0] == torn.pk
        assert set(got[1:3]) == set(keys(edge))
        assert got[-1] == unknown.pk

    def test_boundary(self) -> None:
        assert boundary([(0.1, True)] * 4 + [(0.9, False)] * 9) is None
        assert boundary([(0.2, True)] * 5 + [(0.8, False)] * 5) == pytest.approx(0.5)
        noisy = [(0.1 * n, n < 5) for n in range(10)] + [(0.05, False), (0.95, True)]
        assert boundary([(s, d) for s, d in noisy]) == pytest.approx(0.45)

    def test_diverse_reaches_every_cluster_before_it_repeats(self, queue: Queue) -> None:
        clusters = {axis: set[UUID]() for axis in range(5)}
        for axis, members in clusters.items():
            for n in range(12):
                direction = np.zeros(EMBEDDING_DIMENSION)
                direction[axis], direction[100 + n] = 1.0, 0.05
                members.add(make_turn(queue.assistant, contexts=(), embedding=direction.tolist()).pk)
        got = chosen(queue, order="diverse", limit="5")
        assert {next(axis for axis, members in clusters.items() if key in members) for key in got} == set(range(5))
        assert chosen(queue, order="diverse", limit="5") == got  # the same press picks the same
        assert len(set(chosen(queue, order="diverse", limit="100"))) == 60

    def test_diverse_keeps_away_from_what_the_queue_has(self, assistant: Assistant) -> None:
        queue = make_queue(assistant, turns=[make_turn(assistant, embedding=towards(1.0))])
        for n in range(20):
            make_turn(assistant, contexts=(), embedding=towards(1.0, n / 1000))
        other = make_turn(assistant, contexts=(), embedding=towards(0.0, 1.0))
        assert chosen(queue, order="diverse", limit="1") == [other.pk]

    def test_repeats_are_all_taken_in_the_end(self, queue: Queue) -> None:
        for _ in range(4):
            make_turn(queue.assistant, contexts=(), embedding=towards(1.0))
        assert len(set(chosen(queue, order="diverse"))) == 4


class TestPage:
    @pytest.fixture
    def ada(self, assistant: Assistant) -> User:
        from tests.factories import add_member

        ada = make_user()
        add_member(assistant, ada, "admin")
        return ada

    def fill(self, queue: Queue, who: User, **given: str) -> Any:
        client = Client()
        client.force_login(who)
        url = reverse("admin:annotations_queue_fill", args=[queue.pk])
        return client.post(url, {"order": "newest", "limit": "50", **given})

    def test_it_counts_and_shows_before_it_adds(self, queue: Queue, ada: User) -> None:
        make_turn(queue.assistant, question="Is the <b>boiler</b> loud?")
        page = self.fill(queue, ada, count="", language="en")
        html = page.content.decode()
        assert "<b>1</b> of the 1 turn looked at fits." in html
        assert "Is the &lt;b&gt;boiler&lt;/b&gt; loud?" in html
        assert not queue.items.exists()

    def test_items_come_in_the_order_chosen_and_the_filter_is_remembered(self, queue: Queue, ada: User) -> None:
        old, new = make_turn(queue.assistant, asked_at=DAY), make_turn(queue.assistant)
        make_feedback(old, value=-1.0)
        assert self.fill(queue, ada, add="", order="down", since="2026-01-01", words="fee").status_code == 302
        assert [item.turn for item in queue.items.order_by("pk")] == [old, new]
        queue.refresh_from_db()
        assert queue.selection == {
            "order": "down", "limit": 50, "since": "2026-01-01", "unlabelled": False,
        }  # fmt: skip
        client = Client()
        client.force_login(ada)
        shown = client.get(reverse("admin:annotations_queue_fill", args=[queue.pk])).content.decode()
        assert 'value="2026-01-01"' in shown
        told = AuditEvent.objects.get(action="queue.filled").details
        assert told["filter"]["words"] == "given"
        assert told["added"] == 2

    def test_an_example_that_is_not_there_is_said_at_its_field(self, queue: Queue, ada: User) -> None:
        page = self.fill(queue, ada, add="", near="turn:nothing")
        assert page.status_code == 422
        assert "There is no such turn" in page.content.decode()


def test_language_of() -> None:
    def found(question: str, **metadata: object) -> str:
        return language_of(metadata=metadata, question=question, response="")

    assert found("Combien coûte la résiliation du contrat ?") == "fr"
    assert found("解約料はいくらですか") == "ja"
    assert found("anything", locale="pt_BR") == "pt"
    assert found("Was kostet das denn im Monat?", language=7) == "de"
    assert found("12 34 ?") == ""


def test_is_supported() -> None:
    passages = [(1, "A fixed plan has an exit fee of £35. No fee is due at the end."), (2, "Tell us 10 days before.")]
    assert is_supported("A fixed plan has an exit fee of £35. [1]", passages)
    assert is_supported("A fixed plan has an exit fee of £35.", passages)
    assert not is_supported("A fixed plan has an exit fee of £36. [1]", passages)
    assert not is_supported("A fixed plan has an exit fee of £35. [2]", passages)
    assert not is_supported("A fixed plan has an exit fee of £35. [1] Ask your landlord about it.", passages)
    assert not is_supported("Anything at all.", [])

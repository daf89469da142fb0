"""Learned retrieval: it learns what is there to learn, from what people said, and changes nothing by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from annotations.models import Annotation, ContextMark
from assistants.models import Assistant
from capture.models import Retrieval
from knowledge.configuration import SettingsRefused, settings_of
from knowledge.configuring import activate, save_configuration
from knowledge.evidence import pack
from knowledge.models import Chunk, QueryMap
from knowledge.query_maps import Weights
from knowledge.retrieval import retrieve
from tests.factories import make_assistant, make_benchmark, make_document, make_turn, make_user
from training.models import BenchmarkItem, RetrieverTuning, Synthesis, SyntheticItem
from training.retrieval import tuning
from training.retrieval.learning import HARD, Pair, Plan, hard_negatives, learn, ranks
from training.retrieval.pairs import gather
from training.services import NotPossible


def unit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), dtype=np.float32)


def planted(count: int, *, size: int = 48, seed: int = 0) -> tuple[Any, Any, list[Pair]]:
    """Questions that lie off their passages in one direction, the same for all: a house with words of its own."""
    draw = np.random.default_rng(seed)
    passages = unit(draw.normal(size=(count, size)))
    away = draw.normal(size=size)
    questions = unit(passages + 4 * away / np.linalg.norm(away) + 1.0 * unit(draw.normal(size=(count, size))))
    return questions, passages, [Pair((n,), f"g{n}") for n in range(count)]


def test_it_learns_what_all_questions_have_in_common() -> None:
    questions, passages, pairs = planted(400)
    seen, held = slice(0, 300), slice(300, 400)
    plan = Plan(rate=2e-3, step=1.0)
    weights = learn(questions[seen], passages, pairs[seen], plan=plan)
    before = np.mean([1 / rank for rank in ranks(questions[held], passages, pairs[held])])
    after = np.mean([1 / rank for rank in ranks(weights.move(questions[held]), passages, pairs[held])])
    assert after > before + 0.3
    again = learn(questions[seen], passages, pairs[seen], plan=plan)
    assert np.array_equal(weights.up, again.up)


def test_hard_negatives_are_near_and_never_right() -> None:
    questions, passages, pairs = planted(60)
    pairs = [Pair((n, (n + 1) % 60), "g", wrong=((n + 7) % 60,)) for n in range(60)]
    found = hard_negatives(questions, passages, pairs)
    assert found.shape == (60, HARD)
    for n, row in enumerate(found):
        assert not set(row) & set(pairs[n].right)
        assert row[0] == (n + 7) % 60
        assert len(set(row)) == HARD


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        learn(np.zeros((0, 8), np.float32), np.zeros((3, 8), np.float32), [])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_a_map_gives_unit_vectors_and_one_of_nothing_changes_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors = unit(draw.normal(size=(5, 16)))
    some = Weights(draw.normal(size=(3, 16)).astype("f4"), draw.normal(size=(16, 3)).astype("f4"))
    assert np.allclose(np.linalg.norm(some.move(vectors), axis=1), 1, atol=1e-5)
    none = Weights(some.down, np.zeros((16, 3), "f4"))
    assert np.allclose(none.move(vectors), vectors, atol=1e-6)
    assert np.allclose(some.move(vectors[0]), some.move(vectors)[0], atol=1e-6)


# --- From labels to a version -----------------------------------------------------------------------------------------


@pytest.fixture
def assistant(db: None) -> Assistant:
    make_assistant("other", members={"admin": [make_user("carol")]})
    people = {"admin": [make_user("alice")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    return make_assistant("bot", members=people)


def stock(assistant: Assistant, count: int = 60) -> list[Chunk]:
    """Chunks with vectors; the questions of `written` lie off them in one direction."""
    _, passages, _ = planted(count, size=384)
    document = make_document(assistant, path="a.md")
    return Chunk.objects.bulk_create(
        Chunk(
            assistant=assistant, document=document, position=n, text=f"Text {n}.", digest=f"{n:064d}", embedding=vector,
            tokens=3, sentence_embeddings=pack(vector[np.newaxis]), headings=["A"],
        )
        for n, vector in enumerate(passages)
    )  # fmt: skip


def written(assistant: Assistant, chunks: list[Chunk]) -> None:
    synthesis = Synthesis.objects.create(assistant=assistant, state="succeeded")
    SyntheticItem.objects.bulk_create(
        SyntheticItem(
            synthesis=synthesis, chunk=chunk, source=f"doc{n % 15}.md", sentence=0, question=f"Question {n}?",
            response="x", kind="answer", task=str(n),
        )
        for n, chunk in enumerate(chunks)
    )  # fmt: skip


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of questions as planted; what an embedder makes of “Question 7?” is not the matter here."""
    questions, _, _ = planted(60, size=384)

    def vectors(assistant: Assistant, found: Any) -> Any:
        return np.stack([questions[int(text.split()[1].rstrip("?"))] for text, _ in found.asked])

    monkeypatch.setattr(tuning, "_questions", vectors)
    monkeypatch.setattr("training.retrieval.pairs.find_leaks", lambda **_: [])


def test_marks_say_what_is_right_and_what_is_not(assistant: Assistant) -> None:
    import hashlib

    chunks = stock(assistant, 4)
    turn = make_turn(assistant, question="What does leaving cost?")
    first, second = Retrieval.objects.filter(turn=turn).order_by("rank")[:2]
    for retrieval, chunk in ((first, chunks[0]), (second, chunks[1])):
        chunk.digest = hashlib.sha256(retrieval.passage.text.encode()).hexdigest()
        chunk.save(update_fields=["digest"])
    label = Annotation.objects.create(turn=turn, annotator=User.objects.get(username="ann"), verdict="good")
    ContextMark.objects.create(annotation=label, retrieval=first, relevance="relevant")
    ContextMark.objects.create(annotation=label, retrieval=second, relevance="not_relevant")
    found = gather(assistant)
    assert found.asked == [("What does leaving cost?", turn.history)]
    assert (found.pairs[0].right, found.pairs[0].wrong) == ((0,), (1,))
    assert found.sources == {"labels": 1}
    benchmark = make_benchmark(assistant)
    BenchmarkItem.objects.create(benchmark=benchmark, key="1", question="What does leaving cost?")
    assert gather(assistant).dropped == {"a benchmark asks it": 1}
    label.withdrawn_at = label.created_at
    label.save()
    assert gather(assistant).pairs == []


def test_a_tuning_offers_a_version_and_changes_nothing(assistant: Assistant, embedded: None) -> None:
    written(assistant, stock(assistant))
    row = RetrieverTuning.objects.create(assistant=assistant, state="running", token="0" * 32)
    tuning.perform(row)
    row.refresh_from_db()
    assert row.result["sources"] == {"written questions": 60}
    assert row.result["held_out"] + row.result["learned_on"] == 60
    assert row.configuration is not None
    assert tuning.sentence(row)
    assert settings_of(Assistant.objects.get(pk=assistant.pk)).learned == 0
    tuning.perform(row)  # killed behind the storing: nothing twice
    assert QueryMap.objects.count() == 1
    before = retrieve(assistant=assistant, question="Text 7", k=1)
    activate(configuration=row.configuration)
    now = Assistant.objects.get(pk=assistant.pk)
    assert settings_of(now).learned == 1
    assert retrieve(assistant=now, question="Text 7", k=1).config_digest != before.config_digest


def test_too_little_is_said(assistant: Assistant) -> None:
    written(assistant, stock(assistant, 20))
    row = RetrieverTuning.objects.create(assistant=assistant, state="running", token="0" * 32)
    with pytest.raises(NotPossible, match="too few"):
        tuning.perform(row)


def test_a_map_that_is_not_there_cannot_be_chosen(assistant: Assistant) -> None:
    with pytest.raises(SettingsRefused, match="no learned map"):
        save_configuration(
            assistant=assistant, name="x", settings=settings_of(assistant).model_copy(update={"learned": 9})
        )


def test_admins_start_it_reviewers_read_it_and_others_are_refused(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_FOREGROUND = False
    base = "/admin/training/retrievertuning/"

    def enter(name: str) -> Client:
        client = Client()
        client.force_login(User.objects.get(username=name))
        return client

    alice = enter("alice")
    assert "Nothing was learned yet" in alice.get(base).content.decode()
    answer = alice.post(f"{base}add/", {"assistant": assistant.pk, "benchmark": ""})
    row = RetrieverTuning.objects.get()
    assert answer.status_code == 302
    assert "One is under way already" in alice.post(f"{base}add/", {"assistant": assistant.pk}).content.decode()
    page = f"{base}{row.pk}/change/"
    assert alice.get(page).status_code == 200
    assert enter("rob").get(page).status_code == 200
    assert enter("rob").post(f"{base}add/", {"assistant": assistant.pk}).status_code == 403
    assert enter("ann").get(page).status_code in (302, 403, 404)
    assert enter("carol").get(page).status_code in (302, 403, 404)
    carol = enter("carol").post(f"{base}add/", {"assistant": assistant.pk})
    assert "Select a valid choice" in carol.content.decode()

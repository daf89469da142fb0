"""What makes large builds quick must not make them different: stored vectors, parts, and what waits on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pgvector import HalfVector

from assistants.background import launch
from assistants.models import Assistant
from capture.models import Turn
from knowledge.query import question_vectors
from tests.factories import make_assistant, make_benchmark
from tests.training.data.test_build import ANSWERS, DECLINE, HANDOFF, build, curate, resolved, synthesise
from training.data import embedding, stored_vectors
from training.data.candidates import Candidate
from training.data.leakage import find_leaks
from training.data.pool import Pool, batches
from training.models import BenchmarkItem, DatasetVersion, SyntheticItem


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


def store_vectors(assistant: Assistant, *, wrong: bool = False) -> None:
    turns = list(Turn.objects.of(assistant))
    vectors = question_vectors([(turn.question, turn.history) for turn in turns])
    for turn, vector in zip(turns, np.roll(vectors, 7, axis=1) if wrong else vectors, strict=True):
        turn.embedding = HalfVector(vector)
    Turn.objects.bulk_update(turns, ["embedding"])


@pytest.mark.parametrize("wrong", [False, True])
def test_stored_vectors_are_taken_when_they_are_of_todays_embedder(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    curate(assistant)
    benchmark = make_benchmark(assistant)
    near = "How long before I move must I tell you?"
    BenchmarkItem.objects.create(benchmark=benchmark, key="near", question=near, kind="answer")
    options: dict[str, Any] = {"benchmark": benchmark, "synthesis": synthesise(assistant), "near_duplicate": 0.85}
    expected = build(assistant, **options)
    assert expected.blocked
    store_vectors(assistant, wrong=wrong)
    asked: list[str] = []
    real = embedding.question_vectors

    def counting(rows: Any, *rest: Any) -> Any:
        asked.extend(question for question, _ in rows)
        return real(rows, *rest)

    monkeypatch.setattr(stored_vectors, "EMBED_ANEW", 0)
    monkeypatch.setattr(stored_vectors, "SAMPLE", 2)
    monkeypatch.setattr(embedding, "question_vectors", counting)
    found = build(assistant, **options)
    assert (found.content_hash, found.blocked[0]["by"]) == (expected.content_hash, expected.blocked[0]["by"])
    assert (len(set(asked) & ANSWERS.keys()) > 2) is wrong  # only a sample is embedded, or all of them anew


def test_turns_whose_vectors_nobody_has_stored_are_embedded_once(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    curate(assistant)
    expected = build(assistant)
    asked: list[str] = []
    real = embedding.question_vectors

    def counting(rows: Any, *rest: Any) -> Any:
        asked.extend(question for question, _ in rows)
        return real(rows, *rest)

    monkeypatch.setattr(stored_vectors, "EMBED_ANEW", 0)
    monkeypatch.setattr(embedding, "question_vectors", counting)
    assert build(assistant).content_hash == expected.content_hash
    turns = [question for question in asked if question in ANSWERS]
    assert turns
    assert len(turns) == len(set(turns))


def test_written_questions_are_embedded_once(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    curate(assistant)
    synthesis = synthesise(assistant)
    first = build(assistant, synthesis=synthesis)
    assert SyntheticItem.objects.filter(synthesis=synthesis, dropped_by="", vector=None).count() == 0
    assert build(assistant, synthesis=synthesis).content_hash == first.content_hash
    SyntheticItem.objects.filter(synthesis=synthesis).update(vector=b"\x00" * 20)  # another embedder's
    assert build(assistant, synthesis=synthesis).content_hash == first.content_hash


def test_parts_make_no_difference(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    curate(assistant)
    synthesis = synthesise(assistant)
    whole = build(assistant, synthesis=synthesis, near_duplicate=0.7)
    for place in ("collect.CHUNK", "freeze.CHUNK", "guard.PART", "choose.BLOCK"):
        monkeypatch.setattr(f"training.data.{place}", 2)
    assert build(assistant, synthesis=synthesis, near_duplicate=0.7).content_hash == whole.content_hash


def test_what_waits_on_disk_comes_back_whole_and_the_file_has_no_name(settings: Any, tmp_path: Any) -> None:
    settings.VAR_DIR = tmp_path
    row = Candidate(
        origin="good", kind="answer", group="g", question="Ünder £5?", history=[], evidence=[[1, 0, 0.5]],
        contexts=[{"rank": 1, "title": "T", "source": "a.md", "text": "One. Two.", "relevant": True}],
        sentences=[{"text": "One.", "refs": [[1, 0]]}],
    )  # fmt: skip
    with Pool() as pool:
        head = pool.add(row, np.ones(384, dtype=np.float32))
        assert pool.read(head) == row
        assert list(tmp_path.iterdir()) == []
        assert (head.documents, head.answers, head.judged) == (("a.md",), True, False)
        assert pool.vectors([head]).shape == (1, 384)
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_a_conversation_in_which_the_benchmarks_question_was_asked_stays_out(assistant: Assistant) -> None:
    curate(assistant)
    benchmark = make_benchmark(assistant)
    asked = "May I pay the invoice in four parts over the year?"
    BenchmarkItem.objects.create(benchmark=benchmark, key="b", question=asked, kind="answer")
    said = [("user", asked), ("assistant", "Yes."), ("user", "Thank you."), ("assistant", "Gladly.")]
    history = [{"role": role, "content": text} for role, text in said]
    resolved(assistant, asked, "Tell us 10 days before you move. [2]", conversation="talk")
    resolved(
        assistant, "And before?", "Read the meter on the first day of the month. [3]", conversation="talk",
        history=history,
    )  # fmt: skip
    dataset = build(assistant, benchmark=benchmark)
    assert [(row["question"], row["by"]) for row in dataset.blocked] == [
        (asked, "same words"), ("And before?", "conversation of the benchmark"),
    ]  # fmt: skip
    assert find_leaks(rows=[("And before?", history)], items=[(asked, [])], threshold=0.99) == []  # type: ignore[list-item]


def test_a_part_of_a_version_that_is_gone_is_not_built_from_something_else(assistant: Assistant) -> None:
    curate(assistant)
    orphan = DatasetVersion.objects.create(
        assistant=assistant, number=7, recipe={}, excluded=[1], prompt_digest=assistant.prompt_digest
    )
    launch(orphan, foreground=True)
    orphan.refresh_from_db()
    assert (orphan.state, orphan.rows) == ("failed", 0)
    assert "is gone" in orphan.error

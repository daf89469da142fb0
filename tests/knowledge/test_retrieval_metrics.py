"""Measures against values worked out by hand, the file format, and the two commands."""

from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from assistants.models import Assistant
from knowledge import metrics
from knowledge.benchmarking import Gold, UnreadableBenchmark, ask, ranks_of, read_questions
from knowledge.fusion import by_rank, scaled, weighted
from knowledge.lexicon import BUDGET, Term, _search, count_words, due_for_counting
from knowledge.retrieval import RetrievedPassage
from knowledge.selftest import NothingToTest, self_test
from knowledge.services import load_document
from tests.factories import make_assistant

DOCUMENTS = {
    "leaving.md": "# Leaving\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "solar.md": "# Solar\n\nWe pay 12 p for each unit that you export.",
    "meters.md": "# Meters\n\nRead the meter on the first day of the month.",
}


def test_measures_by_hand() -> None:
    ranks = (2, 0, 4)  # three right passages, the second was not found
    assert metrics.recall(ranks, 1) == 0
    assert metrics.recall(ranks, 3) == pytest.approx(1 / 3)
    assert metrics.recall(ranks, 5) == pytest.approx(2 / 3)
    assert (metrics.hit(ranks, 1), metrics.hit(ranks, 3)) == (0, 1)
    assert metrics.reciprocal_rank(ranks) == 0.5
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg(ranks, 10) == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / best)
    assert metrics.ndcg(ranks, 3) == pytest.approx((1 / math.log2(3)) / best)
    assert metrics.ndcg((1,), 10) == metrics.ndcg((2, 1), 10) == 1
    assert metrics.ndcg((1, 1), 10) == 1  # both in the first passage: no order is better
    assert metrics.ndcg((1, 1, 0), 10) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert metrics.of_question((0,))["mrr"] == 0
    with pytest.raises(ValueError, match="no recall"):
        metrics.of_question(())
    assert metrics.mean([{"mrr": 1.0}, {"mrr": 0.5}]) == {"mrr": 0.75}


def test_fusion_by_hand() -> None:
    assert scaled({1: 3.0, 2: 2.0, 3: 1.0}, 2) == {1: 1.0, 2: 0.0, 3: 0.0}
    assert scaled({1: 3.0, 2: 1.5}, 50, floor=0.0) == {1: 1.0, 2: 0.5}
    assert scaled({7: 0.4}, 50) == {7: 1.0}
    assert scaled({}, 50) == {}
    assert by_rank({1: 0.1, 2: 0.9, 3: 0.1}, 2, 60) == {2: 1.0, 1: 61 / 62}
    assert weighted([(3, {1: 1.0}), (1, {1: 0.0, 2: 1.0})]) == {1: 0.75, 2: 0.25}


def passage(rank: int, source: str, text: str) -> RetrievedPassage:
    return RetrievedPassage(rank, rank, "T", source, text, 1.0, b"")


def test_golds_are_documents_sentences_or_texts() -> None:
    found = [passage(1, "a.md", "One thing."), passage(2, "a.md", "The fee is £35."), passage(3, "b.md", "Another.")]
    assert ranks_of([Gold(path="b.md"), Gold(path="c.md")], found) == (2, 0)  # the second document, not passage
    assert ranks_of([Gold(path="a.md", sentence="The  fee is £35.")], found) == (2,)
    assert ranks_of([Gold(path="b.md", sentence="The fee is £35.")], found) == (0,)
    assert ranks_of([Gold(text="Another."), Gold(path="a.md")], found) == (3, 1)


@pytest.mark.parametrize(
    ("line", "where"),
    [("{", "line 1"), ("[1]", "line 1"), ('{"question": ""}', "question"), ('{"question": "q", "gold": [{}]}', "gold"),
     ('{"question": "q", "history": [{"role": "user"}]}', "history"), ('{"question": "q"}', "No question"),
     (" ", "No question")],
)  # fmt: skip
def test_unreadable_files_say_where(line: str, where: str) -> None:
    with pytest.raises(UnreadableBenchmark, match=where):
        read_questions([line])


def test_a_benchmark_file_of_ours_is_read_too() -> None:
    line = {"id": "1", "question": "q", "kind": "answer", "answers": ["a"], "gold": [{"path": "p", "sentence": "s"}]}
    (question,) = read_questions([json.dumps(line)])
    assert question.gold == [Gold(path="p", sentence="s")]


@pytest.mark.django_db
def test_the_command_measures_and_changes_nothing(tmp_path: Path) -> None:
    assistant = make_assistant(slug="bench")
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    file = tmp_path / "q.jsonl"
    rows = [
        {"question": "What is the exit fee?", "gold": ["leaving.md"]},
        {"question": "What do you pay for export?", "gold": ["meters.md"]},  # wrong on purpose
        {"question": "Who won the cup?", "gold": []},
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    out = StringIO()
    call_command("retrieval_benchmark", file, assistant="bench", json=True, stdout=out)
    result = json.loads(out.getvalue())
    assert (result["questions"], result["with_gold"]) == (3, 2)
    assert result["recall@1"] == 0.5
    assert 0.5 < result["mrr"] < 1
    out = StringIO()
    call_command("retrieval_benchmark", file, assistant="bench", set=["words=0", "fusion=ranks"], stdout=out)
    assert "recall@1" in out.getvalue()
    for wrong in ({"set": ["k"]}, {"set": ["k=99"]}, {"configuration": 7}, {"assistant": "nobody"}):
        with pytest.raises(CommandError):
            call_command("retrieval_benchmark", file, **{"assistant": "bench", **wrong})
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("retrieval_benchmark", tmp_path / "none", assistant="bench")
    (outcome,) = ask(assistant=assistant, questions=read_questions([json.dumps(rows[0])]))
    assert outcome.ranks == (1,)
    assert outcome.cluster == "leaving.md"


@pytest.mark.django_db
def test_the_self_test_compares_index_and_exact_search() -> None:
    assistant = make_assistant(slug="tested")
    with pytest.raises(NothingToTest):
        self_test(assistant=assistant)
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    result = self_test(assistant=assistant, sample=2)
    assert (result.chunks, result.asked, result.path) == (3, 2, "exact")
    assert (result.recall, result.worst) == (1.0, 1.0)
    out = StringIO()
    call_command("retrieval_selftest", assistant="tested", at_least=0.99, stdout=out)
    assert "recall@10 1.0000" in out.getvalue()


@pytest.mark.django_db
def test_words_are_counted_when_many_are_new() -> None:
    assistant = make_assistant()
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    assert due_for_counting() == [assistant.pk]
    assert count_words(assistant) > 10
    assert due_for_counting() == []


def test_common_words_do_not_make_a_search_slow() -> None:
    """Words are searched as long as few chunks hold them; where all are common, several together or not at all."""
    assistant = Assistant(pk=7)
    rare, common = Term("'fee'", 5.0, 40), Term("'plan'", 1.0, 60_000)
    assert _search(assistant, [rare, common], [], 100_000) == "'@7' & ('fee')"
    assert _search(assistant, [common, Term("'meter'", 0.9, 400)], [], 100_000) == "'@7' & (('plan' & 'meter'))"
    assert _search(assistant, [common, Term("'day'", 0.9, 50_000)], [], 100_000) == ""
    assert _search(assistant, [Term("'fee'", 5.0, BUDGET), Term("'due'", 4.0, 1)], [], 9_000) == "'@7' & ('fee')"
    assert _search(assistant, [common], [Term("'new'", 9.0, 0)], 100_000) == "'@7' & ('new')"

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from training.base_model.evaluate import DEVELOPMENT, handbook
from training.base_model.library import DECLINE, NOISE, SENTENCES, Condition, Library, library_examples, offered
from training.base_model.ranking import Ranker
from training.base_model.reading_set import answerability_examples, doc2dial_library, squad_library
from training.base_model.scoring import best_threshold, first_sentence, kind_of, score, thresholded
from training.base_model.sessions import Example
from training.base_model.worlds import Item, Line


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker()


@pytest.fixture(scope="module")
def library() -> Library:
    whole = handbook(DEVELOPMENT)
    return Library("some", whole.lines, whole.items[:30] + [i for i in whole.items if not i.gold][:5])


def test_evidence_comes_from_the_best_documents_in_order() -> None:
    scores = np.array([0.1, 0.9, 0.3, 0.8, 0.2, 0.7], np.float32)
    documents = np.array([0, 0, 1, 2, 3, 4])
    assert offered(scores, documents) == [1, 3, 5, 0]
    assert offered(scores, documents, {1}) == [3, 5, 0]


def test_conditions_change_the_evidence_only(ranker: Ranker, library: Library) -> None:
    clean, noisy, missing = (library_examples(library, ranker, condition) for condition in Condition)
    assert all(len(e.evidence) == SENTENCES for e in clean)
    assert all(len(e.evidence) == SENTENCES + NOISE for e in noisy)
    assert [set(c.evidence) <= set(n.evidence) for c, n in zip(clean, noisy, strict=True)].count(False) == 0
    assert [e.answerable for e in clean] == [e.answerable for e in noisy]
    assert not any(e.answerable for e in missing)
    assert sum(e.answerable for e in clean) > 20
    questions = [
        [e.branches[0].messages[-1]["content"].rpartition("Question: ")[2] for e in s] for s in (clean, missing)
    ]
    assert questions[0] == questions[1]


def _question(example: Example) -> str:
    return example.branches[0].messages[-1]["content"].rpartition("Question: ")[2]


def _answers(examples: list[Example]) -> list[str]:
    return [e.branches[0].completion for e in examples]


def test_perfect_answers_score_one(ranker: Ranker, library: Library) -> None:
    found = library_examples(library, ranker)
    scores = score(found, _answers(found))
    assert scores.right_sentence == scores.right_document == scores.all_sentences == scores.exact == 1.0
    assert scores.contains == scores.token_f1 == scores.numbers_copied == scores.verdict == 1.0
    assert scores.declined == scores.decline_f1 == 1.0
    assert scores.false_decline == 0.0


def test_declining_everything_has_a_price(ranker: Ranker, library: Library) -> None:
    found = library_examples(library, ranker)
    scores = score(found, [DECLINE] * len(found))
    assert scores.declined == scores.false_decline == 1.0
    assert scores.decline_precision == pytest.approx(scores.unanswerable / len(found), abs=1e-3)
    assert scores.right_sentence == scores.contains == 0.0


def test_the_baseline_prints_the_first_sentence(ranker: Ranker, library: Library) -> None:
    found = library_examples(library, ranker)
    scores = score(found, first_sentence(found))
    assert 0.3 < scores.right_sentence <= scores.right_document <= 1.0
    assert scores.declined == 0.0
    threshold = best_threshold(found, first_sentence(found))
    below = score(found, thresholded(found, first_sentence(found), threshold))
    assert below.declined - below.false_decline > 0.0


def test_kinds_of_questions(ranker: Ranker, library: Library) -> None:
    kinds = {kind_of(e) for e in library_examples(library, ranker) if e.answerable}
    assert {"plain", "yes or no"} <= kinds


def test_libraries_append_with_their_own_numbers() -> None:
    library = Library("two")
    for _ in range(2):
        world = handbook(DEVELOPMENT)
        from training.base_model.worlds import World

        library.add_world(World([Line(0, "A", "One fee applies."), Line(3, "B", "Two fees apply.")], world.items[:0]))
        library.items.append(Item("Which?", ((len(library.lines) - 1, "Two fees apply."),)))
    assert [line.document for line in library.lines] == [0, 3, 4, 7]
    assert [item.gold[0][0] for item in library.items] == [1, 3]


def test_public_formats(tmp_path: Path, ranker: Ranker) -> None:
    squad = {
        "data": [
            {"title": "Boats", "paragraphs": [{
                "context": "Boats are for hire. A boat costs £5 a day. Ask the keeper.",
                "qas": [{"question": "What does a boat cost?", "answers": [{"text": "£5 a day", "answer_start": 33}]}],
            }]}
        ]
    }  # fmt: skip
    path = tmp_path / "squad.json.gz"
    path.write_bytes(gzip.compress(json.dumps(squad).encode()))
    library = squad_library(path, 5, 0)
    assert library.items[0].gold == ((1, "A boat costs £5 a day."),)
    assert library.items[0].short == "£5 a day"

    documents, questions = tmp_path / "documents.jsonl", tmp_path / "questions.jsonl"
    text = "Boats are for hire.\nA boat costs £5 a day. Ask the keeper."
    documents.write_text(json.dumps({"title": "Boats#1", "context": text}), encoding="utf-8")
    asked = {"title": "Boats#1", "question": "user:And the price?\tagent:Yes.\tuser:Do you hire out?",
             "answers": {"text": ["A boat costs £5 a day. "], "answer_start": [20]}}  # fmt: skip
    questions.write_text(json.dumps({**asked, "answers": repr(asked["answers"])}), encoding="utf-8")
    item = doc2dial_library(documents, questions, 5, 0).items[0]
    assert (item.question, item.gold[0][0]) == ("And the price?", 1)
    assert item.history[0]["content"] == "Do you hire out?"

    tasks = tmp_path / "tasks.jsonl"
    rows = [{"input": [{"speaker": "user", "text": "What does a boat cost?"}], "contexts": [{"text": text}],
             "answerability": [label]} for label in ("ANSWERABLE", "UNANSWERABLE")]  # fmt: skip
    tasks.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert sorted(e.answerable for e in answerability_examples(tasks, ranker, 5, 0)) == [False, True]


def test_other_formats_are_named(tmp_path: Path, ranker: Ranker) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"data": [{"nothing": 1}]}', encoding="utf-8")
    with pytest.raises(ValueError, match="not in SQuAD's format"):
        squad_library(path, 1, 0)
    with pytest.raises(ValueError, match="not in Doc2Dial's format"):
        doc2dial_library(path, path, 1, 0)
    with pytest.raises(ValueError, match="not in the format of MTRAG-UN"):
        answerability_examples(path, ranker, 1, 0)

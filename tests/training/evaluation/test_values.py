"""The measures against well-known implementations, and against cases worked out by hand."""

from __future__ import annotations

import random

import ir_measures
import pytest
from ir_measures import RR, R, nDCG
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from generation.prompts import Answer, PromptPassage, PromptStyle, SentenceRef
from knowledge.metrics import ndcg, recall, reciprocal_rank
from training.evaluation.agreeing import agreement, cohen_kappa
from training.evaluation.comparisons import Measured, declining
from training.evaluation.dates import dates
from training.evaluation.metrics import (
    citation_quality,
    dates_exact,
    groundedness,
    numbers_exact,
    repeats,
    rouge_l,
)

WORDS = "the exit fee of fixed plan is £35 for each fuel and 1,250 kWh a year read it on Monday".split()  # noqa: SIM905


def test_rouge_l_is_that_of_rouge_score() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    draw = random.Random(1)
    for _ in range(200):
        a, b = (" ".join(draw.choices(WORDS, k=draw.randint(0, 14))) for _ in range(2))
        assert rouge_l(a, [b]) == pytest.approx(scorer.score(b, a)["rougeL"].fmeasure), (a, b)
    assert rouge_l("a b", ["x", "a b"]) == 1.0
    assert rouge_l("", ["x"]) == rouge_l("x", []) == 0.0


def test_rankings_are_those_of_trec_eval() -> None:
    """One thing to find in each passage, as trec_eval knows it."""
    draw = random.Random(2)
    for _ in range(60):
        n, wanted = draw.randint(1, 12), draw.randint(1, 4)
        places = [draw.choice([0, *range(1, n + 1)]) for _ in range(wanted)]
        ranks = [rank if places.index(rank) == i or not rank else 0 for i, rank in enumerate(places)]
        qrels = [ir_measures.Qrel("q", f"gold{i}" if not rank else f"p{rank}", 1) for i, rank in enumerate(ranks)]
        run = [ir_measures.ScoredDoc("q", f"p{rank}", 100.0 - rank) for rank in range(1, n + 1)]
        found = ir_measures.calc_aggregate([R @ 1, R @ 5, RR, nDCG @ 10], qrels, run)
        assert recall(ranks, 1) == pytest.approx(found[R @ 1])
        assert recall(ranks, 5) == pytest.approx(found[R @ 5])
        assert reciprocal_rank(ranks) == pytest.approx(found[RR])
        assert ndcg(ranks, 10) == pytest.approx(found[nDCG @ 10])


def test_declining_is_precision_recall_and_f1_of_scikit_learn() -> None:
    draw = random.Random(3)
    said = [draw.random() < 0.4 for _ in range(120)]
    right = [draw.random() < 0.5 for _ in range(120)]
    answers = {
        i: {"declined": float(s), **({"rightly_declined": float(s)} if r else {"over_refusal": float(s)})}
        for i, (s, r) in enumerate(zip(said, right, strict=True))
    }
    split = {("a", "clean"): {i: answers[i] for i in range(70)}, ("a", "missing_oracle"): {
        i: answers[i] for i in range(70, 120)}}  # fmt: skip
    found = declining(Measured(split, {i: str(i % 20) for i in range(120)}), "a")
    precision, recalled, f1, _ = precision_recall_fscore_support(right, said, average="binary")
    assert [found[name]["value"] for name in ("precision", "recall", "f1")] == pytest.approx([precision, recalled, f1])
    assert all(found[name]["low"] <= found[name]["value"] <= found[name]["high"] for name in found)


def test_agreement_is_scikit_learns_kappa() -> None:
    draw = random.Random(4)
    first = [draw.choice(["candidate", "baseline", "tie"]) for _ in range(80)]
    second = [a if draw.random() < 0.7 else draw.choice(["candidate", "tie"]) for a in first]
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    found = agreement(first, second)
    assert found["low"] < found["kappa"] < found["high"]
    assert cohen_kappa([], []) is None
    assert agreement(["tie"], ["tie"])["kappa"] is None
    with pytest.raises(ValueError, match="no pairs"):
        cohen_kappa(["tie"], [])


PASSAGES = [
    PromptPassage(1, "Fees", "The exit fee is £35. It falls to £10 in the last month."),
    PromptPassage(2, "Meters", "Read the meter on the first day of the month."),
]


def cited(marked: str, *refs: tuple[int, int]) -> Answer:
    return Answer(text=marked, marked=marked, citations=tuple(SentenceRef(*ref) for ref in refs), declined=False)


@pytest.mark.parametrize(
    ("answer", "found", "precise"),
    [
        (cited("The exit fee is £35. [1]", (1, 0)), 1.0, 1.0),
        (cited("The exit fee is £35. [2]", (2, 0)), 0.0, 0.0),
        # Two citations of which one suffices: the other one is not needed, and neither supports alone without it.
        (cited("The exit fee is £35. [1] [2]", (1, 0), (2, 0)), 1.0, 0.5),
        # Jointly needed: neither supports the sentence alone, so both are right (leave one out).
        (cited("The exit fee is £35 on the first day of the month. [1] [2]", (1, 0), (2, 0)), 1.0, 1.0),
        (cited("The exit fee is £35. Read the meter. [2]", (2, 0)), 0.5, 1.0),
        (cited("The exit fee is £99. [1]", (1, 0)), 0.0, 0.0),
        (cited("", ()) if False else cited(""), 0.0, 0.0),
    ],
)
def test_citations_as_in_alce(answer: Answer, found: float, precise: float) -> None:
    quality = citation_quality(answer, PASSAGES)
    assert (quality.recall, quality.precision) == (found, precise)


def test_another_judge_of_support_may_be_given() -> None:
    answer = cited("The exit fee is £35. [1]", (1, 0))
    assert citation_quality(answer, PASSAGES, entails=lambda premise, claim: False).recall == 0.0
    seen: list[tuple[str, str]] = []
    citation_quality(answer, PASSAGES, PromptStyle.PASSAGES, entails=lambda p, c: bool(seen.append((p, c))))
    assert seen == [(PASSAGES[0].text, "The exit fee is £35.")]


def test_numbers_and_dates() -> None:
    assert numbers_exact("It costs £1,250 in 2026.", ["£1250, from 2026"]) == 1.0
    assert numbers_exact("It costs £1,250 or £30.", ["£1250"]) == 0.0
    assert numbers_exact("It costs nothing.", ["£1250"]) == 0.0
    assert numbers_exact("It costs 3.", ["nothing"]) is None
    assert dates("By 1 March 2026, or 2026-03-02, 3.3.2026, March 4th and 5/6/2026.") == {
        (2026, 3, 1), (2026, 3, 2), (2026, 3, 3), (None, 3, 4), (2026, 6, 5),
    }  # fmt: skip
    assert dates("On 31.13.2026 it may march 40 km.") == frozenset()
    assert dates_exact("On March 1st", ["1 March"]) == 1.0
    assert dates_exact("On March 2nd", ["1 March"]) == 0.0
    assert dates_exact("On March 2nd", ["soon"]) is None


def test_words_of_the_passages() -> None:
    assert groundedness("The exit fee is £35.", PASSAGES) == 1.0
    assert groundedness("The exit fee is outrageous.", PASSAGES) == pytest.approx(2 / 3)


def test_reciting_is_eight_words_of_a_training_answer_that_nobody_gave() -> None:
    from generation.overlap import ngrams

    learned = "You can always reach our friendly team by phone until eight in the evening."
    memory = set(ngrams(learned, 8))
    assert repeats(f"Yes. {learned}", memory, "Some passage.")
    assert not repeats(f"Yes. {learned}", memory, f"It says: {learned}")
    assert not repeats("You can always reach our team.", memory, "")

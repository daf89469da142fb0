"""The test: right p-values when nothing changed, power when a fifth did, the same again on the same input."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.drift import two_sample
from serving.drift.terms import telling_terms
from serving.drift.two_sample import areas_under_curve, compare, p_values


def points(generator: np.random.Generator, n: int, moved: int = 0, by: float = 12.0) -> NDArray[np.float32]:
    """Correlated, as sentence vectors are; ``moved`` of them are of another topic."""
    mixing = np.random.default_rng(0).normal(size=(20, 64))
    found = generator.normal(size=(n, 20)) @ mixing
    found[:moved] += by * mixing[0]
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_new_topics_are_found_and_named() -> None:
    generator = np.random.default_rng(1)
    old, new = points(generator, 200), points(generator, 200, moved=80)
    found = compare(old, new, seed=1, permutations=99)
    assert found.p == 0.01  # none of 99 is as far apart
    assert max(found.fisher_p, found.mmd_p) <= 0.03
    assert found.auc > 0.55
    surest = np.argsort(-found.scores)[:30]
    assert (surest < 80).mean() > 0.8
    assert ((found.scores > 0) & (found.scores < 1)).all()


def test_a_new_spread_around_the_same_middle_is_found_too() -> None:
    """Fisher's discriminant sees no other mean; the kernel does."""
    generator = np.random.default_rng(5)
    old = generator.normal(size=(200, 8)).astype(np.float32)
    new = (generator.normal(size=(200, 8)) * 1.7).astype(np.float32)
    found = compare(old, new, seed=1, permutations=199)
    assert found.fisher_p > 0.05
    assert found.p <= 0.05


def test_words_find_what_vectors_do_not_show() -> None:
    generator = np.random.default_rng(6)
    vectors = generator.normal(size=(240, 8)).astype(np.float32)
    said = [frozenset({"fee", f"plan{i % 5}"}) for i in range(200)] + [
        frozenset({"solar", f"plan{i % 5}"}) for i in range(40)
    ]
    found = compare(vectors[:120], vectors[120:], seed=1, words=(said[:120], said[120:]), permutations=199)
    assert found.words_p == 0.005
    assert min(found.fisher_p, found.mmd_p) > 0.05
    assert found.p <= 0.05
    silent = [frozenset[str]()] * 120
    nothing = compare(vectors[:120], vectors[120:], seed=1, words=(silent, silent), permutations=19)
    assert nothing.words_p == 1.0
    with pytest.raises(ValueError, match="As many"):
        compare(vectors[:120], vectors[120:], seed=1, words=(silent, silent[1:]))


def test_without_a_change_as_many_windows_drift_as_was_said() -> None:
    """Two sizes, of which one side is the smaller; 120 windows: 6 are expected, and 15 or more come once in 1,000."""
    generator = np.random.default_rng(2)
    drifted = [
        compare(points(generator, 60), points(generator, 50), seed=i, permutations=39).p <= 0.05 for i in range(120)
    ]
    assert sum(drifted) <= 14


def test_all_together_find_what_splitting_would_miss() -> None:
    """A change that a third of the windows show: the joint test finds more than asking either at 2.5 %."""
    generator = np.random.default_rng(7)
    found = [compare(points(generator, 80), points(generator, 80, moved=16, by=3.0), seed=i, permutations=199)
             for i in range(40)]  # fmt: skip
    joint = sum(one.p <= 0.05 for one in found)
    split = sum(2 * min(one.fisher_p, one.mmd_p) <= 0.05 for one in found)
    assert split < joint < 40


def test_p_values_by_hand() -> None:
    values = np.array([[3.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 0.1, 0.0]])
    assert p_values(values).tolist() == [[0.5, 1.0, 0.75, 0.5], [1.0] * 4, [0.5, 0.5, 0.75, 1.0]]


def test_the_same_input_gives_the_same_output() -> None:
    generator = np.random.default_rng(3)
    old, new = points(generator, 60), points(generator, 60)
    first, again = (compare(old, new, seed=5, permutations=9) for _ in range(2))
    assert (first.auc, first.p, first.mmd, first.fisher_p) == (again.auc, again.p, again.mmd, again.fisher_p)
    assert (first.scores == again.scores).all()


def test_few_vectors_are_refused() -> None:
    few = np.ones((49, 8), dtype=np.float32)
    with pytest.raises(ValueError, match="50"):
        compare(few, few, seed=1)


def test_vectors_that_are_all_the_same_are_no_drift() -> None:
    same = np.ones((60, 8), dtype=np.float32)
    found = compare(same, same, seed=1, permutations=19)
    assert (found.p, found.fisher_p, found.mmd_p) == (1.0, 1.0, 1.0)


def test_area_under_the_curve_by_hand() -> None:
    scores, labels = (
        np.array([[0.1, 0.5], [0.4, 0.5], [0.35, 0.5], [0.8, 0.5]]),
        np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]),
    )
    assert areas_under_curve(scores, labels).tolist() == [0.75, 0.5]


def test_the_classifier_is_the_one_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(4)
    design, labels = generator.normal(size=(120, 6)), (generator.random((120, 2)) < 0.4).astype(float)
    ours = two_sample._logistic(design, labels)
    for column in range(2):
        model = linear_model.LogisticRegression(C=1 / two_sample.PENALTY, tol=1e-10).fit(design, labels[:, column])
        assert ours[:-1, column] == pytest.approx(model.coef_[0], abs=2e-3)
        assert ours[-1, column] == pytest.approx(model.intercept_[0], abs=2e-3)


def test_words_that_gave_it_away() -> None:
    old = ["What is the exit fee?", "Tell me the fee"] * 20
    new = ["What is the exit fee?"] * 20 + ["Do you buy solar power?"] * 20 + ["secretword"]
    more, less = telling_terms(new, old)
    assert [one.word for one in more][:1] in (["buy"], ["solar"], ["power"])
    assert {one.word for one in more} >= {"solar", "power"}
    assert "fee" in {one.word for one in less}
    assert "secretword" not in {one.word for one in more}  # said by one person
    assert telling_terms([], []) == ([], [])

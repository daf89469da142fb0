"""The two tests: right p-values when nothing changed, power when a fifth did, the same again on the same input."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.drift import two_sample
from serving.drift.terms import telling_terms
from serving.drift.two_sample import areas_under_curve, mean_discrepancy, separate


def points(generator: np.random.Generator, n: int, moved: int = 0) -> NDArray[np.float32]:
    """Correlated, as sentence vectors are; ``moved`` of them are of another topic."""
    mixing = np.random.default_rng(0).normal(size=(20, 64))
    found = generator.normal(size=(n, 20)) @ mixing
    found[:moved] += 12.0 * mixing[0]
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_new_topics_are_found_and_named() -> None:
    generator = np.random.default_rng(1)
    old, new = points(generator, 200), points(generator, 200, moved=80)
    found = separate(old, new, seed=1, permutations=99)
    assert found.p <= 0.03
    assert found.auc > 0.55
    surest = np.argsort(-found.scores)[:30]
    assert (surest < 80).mean() > 0.8
    assert mean_discrepancy(old, new, seed=1)[1] <= 0.01


def test_without_a_change_p_is_uniform_enough() -> None:
    generator = np.random.default_rng(2)
    small = [mean_discrepancy(points(generator, 60), points(generator, 60), seed=i, permutations=99)[1] <= 0.05
             for i in range(200)]  # fmt: skip
    assert sum(small) <= 20  # 10 expected
    classified = [separate(points(generator, 60), points(generator, 60), seed=i, permutations=19).p <= 0.05
                  for i in range(20)]  # fmt: skip
    assert sum(classified) <= 5


def test_the_same_input_gives_the_same_output() -> None:
    generator = np.random.default_rng(3)
    old, new = points(generator, 60), points(generator, 60)
    first, again = (separate(old, new, seed=5, permutations=9) for _ in range(2))
    assert (first.auc, first.p) == (again.auc, again.p)
    assert (first.scores == again.scores).all()
    assert mean_discrepancy(old, new, seed=5) == mean_discrepancy(old, new, seed=5)


def test_few_vectors_are_refused() -> None:
    few = np.ones((49, 8), dtype=np.float32)
    for test in (separate, mean_discrepancy):
        with pytest.raises(ValueError, match="50"):
            test(few, few, seed=1)


def test_vectors_that_are_all_the_same_are_no_drift() -> None:
    same = np.ones((60, 8), dtype=np.float32)
    assert separate(same, same, seed=1, permutations=19).p > 0.05
    assert mean_discrepancy(same, same, seed=1)[1] > 0.05


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

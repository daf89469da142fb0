"""Are two sets of vectors from the same source? Two tests with permutation p, as pure functions.

Classifier two-sample test (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017): a classifier that
has not seen a vector says whether it is one of the new ones; if it cannot, the two sets look alike. Its area under the
curve says how far apart they are (.5: not at all), and its surest vectors show by what.

Maximum mean discrepancy (Gretton et al., "A kernel two-sample test", JMLR 2012), unbiased, with a Gaussian kernel whose
width is the median distance: another view of the same question, with no classifier that could be a poor one.

Both p-values are exact in any sample size when the vectors are exchangeable: take one per conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST = 50
"""In each set: with fewer, a fifth of new topics is missed more often than found."""
COMPONENTS = 100
FOLDS = 5
PENALTY = 100.0
STEPS = 30


@dataclass(frozen=True)
class Separation:
    """``scores``: for each new vector, the probability of being new by a classifier that has not seen it."""

    auc: float
    p: float
    scores: NDArray[np.float64]


def separate(
    before: NDArray[np.float32], now: NDArray[np.float32], *, seed: int, permutations: int = 199
) -> Separation:
    """Classifier two-sample test by logistic regression, area under the curve cross-fitted in five folds.

    The vectors are first projected on their own main directions, all together, and the folds are drawn, both without
    looking at which vector is which: so the permutation is exact, and all permutations are fitted at once.

    Raises:
        ValueError: one of the sets holds fewer than `LEAST` vectors.
    """
    _enough(before, now)
    generator = np.random.default_rng(seed)
    points = _projected(np.concatenate([before, now]).astype(np.float64))
    is_new = np.concatenate([np.zeros(len(before)), np.ones(len(now))])
    labels = np.stack([is_new, *(generator.permutation(is_new) for _ in range(permutations))], axis=1)
    fold = generator.permutation(np.arange(len(points)) % FOLDS)
    scores = np.empty_like(labels)
    for number in range(FOLDS):
        held_out = fold == number
        weights = _logistic(points[~held_out], labels[~held_out])
        scores[held_out] = _probability(points[held_out], weights)
    areas = areas_under_curve(scores, labels)
    p = float((areas >= areas[0]).mean())
    return Separation(float(areas[0]), p, scores[len(before) :, 0])


def mean_discrepancy(
    before: NDArray[np.float32], now: NDArray[np.float32], *, seed: int, permutations: int = 499
) -> tuple[float, float]:
    """(squared maximum mean discrepancy, p).

    Raises:
        ValueError: one of the sets holds fewer than `LEAST` vectors.
    """
    _enough(before, now)
    generator = np.random.default_rng(seed)
    points = np.concatenate([before, now]).astype(np.float64)
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * points @ points.T, 0.0)
    width = float(np.median(distances[np.triu_indices(len(points), 1)]))
    kernel = np.exp(-distances / max(width, 1e-12))
    np.fill_diagonal(kernel, 0.0)
    n, m = len(before), len(now)
    labels = np.concatenate([np.zeros(n), np.ones(m)])
    orders = np.stack([labels, *(generator.permutation(labels) for _ in range(permutations))], axis=1)
    found = _discrepancies(kernel, orders, n, m)
    return float(found[0]), float((1 + (found[1:] >= found[0]).sum()) / (permutations + 1))


def _discrepancies(kernel: Floats, orders: Floats, n: int, m: int) -> Floats:
    """One per column of ``orders`` (0: before, 1: now). The diagonal of the kernel is 0: unbiased."""
    from_new = kernel @ orders
    total = kernel.sum()
    new_new = (orders * from_new).sum(axis=0)
    new_all = from_new.sum(axis=0)
    old_old = total - 2.0 * new_all + new_new
    crossing = new_all - new_new
    discrepancy: Floats = old_old / (n * (n - 1)) + new_new / (m * (m - 1)) - 2.0 * crossing / (n * m)
    return discrepancy


def areas_under_curve(scores: Floats, labels: Floats) -> Floats:
    """For each column the chance that a new one (label 1) scores above an old one (0); ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    m = labels.sum(axis=0)
    n = len(labels) - m
    areas: Floats = ((ranks * labels).sum(axis=0) - m * (m + 1) / 2) / (n * m)
    return areas


def _logistic(points: Floats, labels: Floats) -> Floats:
    """Weights of ridge logistic regressions, a column for each column of ``labels``.

    By Boehning's bound on the Hessian (1992), which is the same for all of them and is inverted once; the number of
    steps is the same too, so that every permutation is treated alike.
    """
    design = _with_constant(points)
    ridge = PENALTY * np.eye(design.shape[1])
    ridge[-1, -1] = 1e-6
    inverse = np.linalg.inv(design.T @ design / 4.0 + ridge)
    weights = np.zeros((design.shape[1], labels.shape[1]))
    for _ in range(STEPS):
        weights += inverse @ (design.T @ (labels - _sigmoid(design @ weights)) - ridge @ weights)
    return weights


def _probability(points: Floats, weights: Floats) -> Floats:
    return _sigmoid(_with_constant(points) @ weights)


def _sigmoid(values: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-values))
    return result


def _with_constant(points: Floats) -> Floats:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _projected(points: Floats) -> Floats:
    centred = points - points.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    kept = min(COMPONENTS, len(values))
    projected: Floats = centred @ directions[:kept].T
    scale = projected.std()
    return projected / scale if scale > 0 else projected


def _enough(before: NDArray[np.float32], now: NDArray[np.float32]) -> None:
    if min(len(before), len(now)) < LEAST:
        raise ValueError(f"Each set needs {LEAST} vectors or more.")

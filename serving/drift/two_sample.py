"""Are two sets of vectors from the same source? One test with permutation p, put together of several; pure functions.

- **Regularised Fisher discriminant** (Harchaoui, Bach and Moulines, "Testing for homogeneity with kernel Fisher
  discriminant analysis", NIPS 2007; here linear): the distance of the means, where directions in which questions
  differ anyway weigh less. It is what a linear classifier learns, and finds more than asking how often one is right on
  vectors that it has not seen: none is kept from it (Kim, Ramdas, Singh and Wasserman, "Classification accuracy as a
  proxy for two-sample testing", Annals of Statistics, 2021).
- **Maximum mean discrepancy** (Gretton et al., "A kernel two-sample test", JMLR 2012) with a Gaussian kernel whose
  width is the median distance: differences other than of the mean, too.
- **Words**, where they are given: the distance of the mean tf-idf vectors. Near topics whose sentences mean nearly the
  same to an embedder have words of their own.

They are put together without splitting the 5 % (Pesarin and Salmaso, "Permutation tests for complex data", 2010): all
see the same permutations, each permutation gets its p among the others for every statistic, and the harmonic mean of
these (Wilson, "The harmonic mean p-value for combining dependent tests", PNAS, 2019) is compared with that of the
permutations. How alike they are is so accounted for. The product of the p-values finds as much where all see something,
and loses what only one of them sees.

By what one sees the difference a classifier says that has not seen a vector when it judges it (Lopez-Paz and Oquab,
"Revisiting classifier two-sample tests", ICLR 2017): its area under the curve says how far apart the two sets are (.5:
not at all), and its surest vectors show by what.

The p-value is exact in any sample size when the vectors are exchangeable: take one per conversation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Words = Sequence[frozenset[str]]

LEAST = 50
"""In each set: with fewer, a fifth of new topics is missed more often than found."""
COMPONENTS = 100
FOLDS = 5
PENALTY = 100.0
STEPS = 30
STRENGTH = 0.05
"""Of the regularisation, as a share of the whole variance: from .03 to .1 it finds the same."""


@dataclass(frozen=True)
class Comparison:
    """``p``: of all together; ``fisher_p``, ``mmd_p`` and ``words_p`` (None: no words were given) are those of each
    alone, to be shown and not to be decided by. ``mmd``: squared, unbiased. ``scores``: for each new vector, the
    probability of being new by a classifier that has not seen it; ``auc`` is that classifier's."""

    p: float
    fisher_p: float
    mmd: float
    mmd_p: float
    words_p: float | None
    auc: float
    scores: Floats


def compare(
    before: NDArray[np.float32],
    now: NDArray[np.float32],
    *,
    seed: int,
    words: tuple[Words, Words] | None = None,
    permutations: int = 499,
) -> Comparison:
    """One p for "both are from the same source". The same input gives the same output.

    Args:
        before, now: shapes (n, d) and (m, d).
        words: of each vector of ``before`` and of ``now``, in their order.
        permutations: the smallest possible p is 1 / (permutations + 1).

    Raises:
        ValueError: one of the sets holds fewer than `LEAST` vectors, or words of others than these are given.
    """
    n, m = len(before), len(now)
    if min(n, m) < LEAST:
        raise ValueError(f"Each set needs {LEAST} vectors or more.")
    if words is not None and (len(words[0]), len(words[1])) != (n, m):
        raise ValueError("As many sets of words as vectors.")
    generator = np.random.default_rng(seed)
    points = np.concatenate([before, now]).astype(np.float64)
    is_new = np.concatenate([np.zeros(n), np.ones(m)])
    labels = np.stack([is_new, *(generator.permutation(is_new) for _ in range(permutations))], axis=1)
    contrasts = labels / m - (1.0 - labels) / n
    statistics = [_fisher(points, contrasts), _discrepancies(_kernel(points), labels, n, m)]
    if words is not None:
        statistics.append(_apart_in_words([*words[0], *words[1]], contrasts))
    each = p_values(np.stack(statistics))
    together = p_values((1.0 / each).sum(axis=0, keepdims=True))
    scores = _held_out_scores(points, labels[:, :1], generator)
    return Comparison(
        p=float(together[0, 0]),
        fisher_p=float(each[0, 0]),
        mmd=float(statistics[1][0]),
        mmd_p=float(each[1, 0]),
        words_p=float(each[2, 0]) if words is not None else None,
        auc=float(areas_under_curve(scores, labels[:, :1])[0]),
        scores=scores[n:, 0],
    )


def p_values(statistics: Floats) -> Floats:
    """For each row and column the share of the row's columns that are as large or larger, itself included. Same shape.

    Rounded first: sums over the same values in another order are the same statistic. All have no unit and are about 1.
    """
    from scipy.stats import rankdata

    shares: Floats = rankdata(-np.round(statistics, 12), method="max", axis=1) / statistics.shape[1]
    return shares


def _fisher(points: Floats, contrasts: Floats) -> Floats:
    """One per column. The covariance is that of both sets together, so no permutation changes it."""
    centred = points - points.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(points))
    variances = np.maximum(variances, 0.0)
    squares = (directions.T @ (centred.T @ contrasts)) ** 2
    floor = STRENGTH * max(float(variances.sum()), 1e-12)
    found: Floats = (squares / (variances + floor)[:, None]).sum(axis=0)
    return found


def _apart_in_words(said: Words, contrasts: Floats) -> Floats:
    """Squared distance of the mean tf-idf vectors of unit length, unbiased; one per column. How rare a word is is
    counted in both sets together, so no permutation changes it; one that only one question holds tells nothing."""
    from scipy.sparse import csr_matrix

    counts = Counter(word for one in said for word in one)
    place = {word: number for number, word in enumerate(sorted(word for word, n in counts.items() if n > 1))}
    found = [(row, place[word], counts[word]) for row, one in enumerate(said) for word in sorted(one) if word in place]
    rows, columns, held_by = np.array(found, dtype=np.int64).reshape(-1, 3).T
    weights = np.log(len(said) / held_by)
    lengths = np.sqrt(np.bincount(rows, weights=weights**2, minlength=len(said)))
    weights = weights / np.where(lengths > 0, lengths, 1.0)[rows]
    matrix = csr_matrix((weights, (rows, columns)), shape=(len(said), len(place) + 1))
    own = np.bincount(rows, weights=weights**2, minlength=len(said))
    distances: Floats = ((matrix.T @ contrasts) ** 2).sum(axis=0) - own @ contrasts**2
    return distances


def _kernel(points: Floats) -> Floats:
    """Gaussian, as wide as the median distance. The diagonal is 0: unbiased."""
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * points @ points.T, 0.0)
    width = float(np.median(distances[np.triu_indices(len(points), 1)]))
    kernel = np.exp(-distances / max(width, 1e-12))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _discrepancies(kernel: Floats, orders: Floats, n: int, m: int) -> Floats:
    """Squared, one per column of ``orders`` (0: before, 1: now)."""
    from_new = kernel @ orders
    total = kernel.sum()
    new_new = (orders * from_new).sum(axis=0)
    new_all = from_new.sum(axis=0)
    old_old = total - 2.0 * new_all + new_new
    crossing = new_all - new_new
    discrepancy: Floats = old_old / (n * (n - 1)) + new_new / (m * (m - 1)) - 2.0 * crossing / (n * m)
    return discrepancy


def _held_out_scores(points: Floats, labels: Floats, generator: np.random.Generator) -> Floats:
    """Probability of being new by logistic regression on the main directions, cross-fitted in five folds. Same shape as
    ``labels``."""
    projected = _projected(points)
    fold = generator.permutation(np.arange(len(points)) % FOLDS)
    scores = np.empty_like(labels)
    for number in range(FOLDS):
        held_out = fold == number
        weights = _logistic(projected[~held_out], labels[~held_out])
        scores[held_out] = _sigmoid(_with_constant(projected[held_out]) @ weights)
    return scores


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

    By Boehning's bound on the Hessian (1992), which is the same for all of them and is inverted once.
    """
    design = _with_constant(points)
    ridge = PENALTY * np.eye(design.shape[1])
    ridge[-1, -1] = 1e-6
    inverse = np.linalg.inv(design.T @ design / 4.0 + ridge)
    weights = np.zeros((design.shape[1], labels.shape[1]))
    for _ in range(STEPS):
        weights += inverse @ (design.T @ (labels - _sigmoid(design @ weights)) - ridge @ weights)
    return weights


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

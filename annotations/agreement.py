"""How far labels can be trusted: percent agreement, Krippendorff's α, Cohen's κ, with bootstrap intervals.

α: Krippendorff, "Content Analysis" (any number of raters, missing labels allowed), computed by the `krippendorff`
library. κ: Cohen 1960, for a pair of raters on the units that both labelled, computed by statsmodels. Intervals are
percentile bootstraps over units (turns, or passages of turns): the units are drawn again, not the labels.

Units with the same labels are interchangeable, so a bootstrap draws how often each pattern occurs (a multinomial) and
never touches single units: its cost does not grow with their number. Calling the libraries for each of the draws would
take seconds a page; the draws use the closed form, which a test holds against the libraries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 500
_SEED = 7
MAX_PEOPLE = 20
"""Pairs are of those with the most labels: with 20 people 190 pairs, each with its own intervals."""

Labels = Mapping[Hashable, Mapping[Hashable, str]]
"""{unit: {rater: value}}"""
Level = Literal["nominal", "interval"]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; ``n`` units went into it. ``value`` is None when it is not defined (nobody
    labelled the same unit; for α and κ also when every label is the same, which leaves no chance agreement)."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class PairAgreement:
    first: str
    second: str
    percent: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Agreement:
    """Of one question (verdict, or relevance of passages)."""

    question: str
    percent: Estimate
    alpha: Estimate
    pairs: tuple[PairAgreement, ...]
    left_out: int = 0
    """People with fewer labels than those whose pairs are told."""


def percent_agreement(labels: Labels) -> Estimate:
    """Share of pairs of labels on the same unit that are equal, averaged over units with at least two labels."""
    counts, _ = _value_counts(labels)
    return percent_of(*_patterns(counts)) if len(counts) else Estimate(None, None, None, 0)


def percent_of(patterns: Counts, times: Counts) -> Estimate:
    """The same, where ``times`` units have the labels of each pattern: how many of them say each value."""
    if not len(times):
        return Estimate(None, None, None, 0)
    totals = patterns.sum(axis=1)
    shares = (patterns * (patterns - 1)).sum(axis=1) / (totals * (totals - 1))
    n = int(times.sum())
    return _estimate(float(times @ shares) / n, _drawn(times) @ shares / n, n)


def krippendorff_alpha(labels: Labels, level: Level = "nominal") -> Estimate:
    """α. 1 is perfect, 0 is what chance gives, below 0 is systematic disagreement.

    Args:
        level: ``interval`` for ratings whose distance counts (values must be numbers then).
    """
    import krippendorff

    counts, values = _value_counts(labels)
    if not _varies(counts):
        return Estimate(None, None, None, len(counts))
    order = values if level == "nominal" else [float(value) for value in values]
    point = krippendorff.alpha(value_counts=counts, value_domain=order, level_of_measurement=level)
    patterns, times = _patterns(counts)
    return _estimate(float(point), _alphas(_drawn(times), patterns, _distances(order)), len(counts))


def alpha_of(patterns: Counts, times: Counts) -> Estimate:
    """Nominal α, where ``times`` units have the labels of each pattern."""
    n = int(times.sum())
    if not _varies(patterns):
        return Estimate(None, None, None, n)
    distances = 1 - np.eye(patterns.shape[1])
    (point,) = _alphas(times[None, :], patterns, distances)
    return _estimate(float(point), _alphas(_drawn(times), patterns, distances), n)


def _alphas(drawn: Counts, patterns: Counts, distances: Floats) -> Floats:
    """Of each draw (how often each pattern came) in which labels vary."""
    # Of one pattern: how much its labels disagree, as it enters the sum over units.
    disagreement = np.einsum("uc,ck,uk->u", patterns, distances, patterns) / (patterns.sum(axis=1) - 1)
    marginals = drawn @ patterns
    totals = marginals.sum(axis=1)
    expected = np.einsum("dc,ck,dk->d", marginals, distances, marginals)
    kept = expected > 0
    found: Floats = 1 - (totals[kept] - 1) * (drawn[kept] @ disagreement) / expected[kept]
    return found


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Estimate:
    """κ of two raters over the same units, in the same order.

    Raises:
        ValueError: the two have different lengths.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels cannot be compared with {len(second)}")
    values = sorted({*first, *second})
    place = {value: i for i, value in enumerate(values)}
    table = np.zeros((len(values), len(values)), dtype=np.int64)
    np.add.at(table, ([place[a] for a in first], [place[b] for b in second]), 1)
    return kappa_of(table)


def kappa_of(table: Counts) -> Estimate:
    """The same, where ``table`` counts what the first rater (rows) and the second said; every value was said once."""
    from statsmodels.stats.inter_rater import cohens_kappa

    n = int(table.sum())
    if len(table) < 2:
        return Estimate(None, None, None, n)
    draws = _drawn(table.ravel()).reshape(RESAMPLES, *table.shape) / n
    equal = np.einsum("dii->d", draws)
    chance = (draws.sum(axis=2) * draws.sum(axis=1)).sum(axis=1)
    kept = chance < 1  # else both gave everything the same value: κ is not defined
    kappas = (equal[kept] - chance[kept]) / (1 - chance[kept])
    return _estimate(float(cohens_kappa(table, return_results=False)), kappas, n)


def agreement_on(question: str, labels: Labels) -> Agreement:
    """Everything about one question; pairs of the `MAX_PEOPLE` people with the most labels in order of name, those
    without a common unit left out."""
    given = Counter(rater for unit in labels.values() for rater in unit)
    raters = sorted(sorted(given, key=lambda rater: (-given[rater], str(rater)))[:MAX_PEOPLE], key=str)
    pairs = pair_agreements(labels, raters)
    return Agreement(
        question, percent_agreement(labels), krippendorff_alpha(labels), pairs, left_out=len(given) - len(raters)
    )


def pair_agreements(labels: Labels, raters: Sequence[Hashable]) -> tuple[PairAgreement, ...]:
    """Of each two of these raters who have a common unit."""
    common: dict[tuple[Hashable, Hashable], list[tuple[str, str]]] = {}
    rank = {rater: i for i, rater in enumerate(raters)}
    for unit in labels.values():
        present = sorted((rater for rater in unit if rater in rank), key=rank.__getitem__)
        for first, second in combinations(present, 2):
            common.setdefault((first, second), []).append((unit[first], unit[second]))
    return tuple(
        PairAgreement(
            str(first),
            str(second),
            percent_agreement({i: dict(enumerate(pair)) for i, pair in enumerate(common[first, second])}),
            cohen_kappa(*zip(*common[first, second], strict=True)),
        )
        for first, second in combinations(raters, 2)
        if (first, second) in common
    )


def _value_counts(labels: Labels) -> tuple[Counts, list[str]]:
    """Matrix units × values of the units with at least two labels, and the values."""
    shared = [unit for unit in labels.values() if len(unit) > 1]
    values = sorted({value for unit in shared for value in unit.values()})
    place = {value: i for i, value in enumerate(values)}
    counts = np.zeros((len(shared), len(values)), dtype=np.int64)
    for row, unit in enumerate(shared):
        for value in unit.values():
            counts[row, place[value]] += 1
    return counts, values


def _varies(counts: Counts) -> bool:
    return bool(len(counts)) and int((counts.sum(axis=0) > 0).sum()) > 1


def _patterns(counts: Counts) -> tuple[Counts, Counts]:
    """The different rows, and how often each is there."""
    patterns, times = np.unique(counts, axis=0, return_counts=True)
    return patterns, times.astype(np.int64)


def _distances(order: Sequence[str] | Sequence[float]) -> Floats:
    """Squared distance of each two values: 1 between different names, that of the numbers for numbers."""
    if isinstance(order[0], str):
        return 1 - np.eye(len(order))
    numbers = np.array(order, dtype=np.float64)
    return (numbers[:, None] - numbers[None, :]) ** 2


def _drawn(times: Counts) -> Counts:
    """`RESAMPLES` draws with replacement: how often each pattern came. The same for the same input, so that a page does
    not flicker."""
    n = int(times.sum())
    return np.random.default_rng(_SEED).multinomial(n, times / n, size=RESAMPLES)


def _estimate(value: float | None, draws: Floats, n: int) -> Estimate:
    if value is None or not len(draws):
        return Estimate(value, None, None, n)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)

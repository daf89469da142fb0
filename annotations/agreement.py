"""How far labels can be trusted: percent agreement, Krippendorff's α, Cohen's κ, with bootstrap intervals.

α: Krippendorff, "Content Analysis" (nominal metric; any number of raters, missing labels allowed), computed by the
`krippendorff` library. κ: Cohen 1960, for a pair of raters on the units that both labelled, computed by statsmodels.
Intervals are percentile bootstraps over units (turns, or passages of turns): the units are drawn again, not the labels.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from annotations.models import Annotation, ContextMark, Queue

RESAMPLES = 500
_SEED = 7

Labels = Mapping[Hashable, Mapping[Hashable, str]]
"""{unit: {rater: value}}"""
Counts = npt.NDArray[np.int64]


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


def percent_agreement(labels: Labels) -> Estimate:
    """Share of pairs of labels on the same unit that are equal, averaged over units with at least two labels."""
    counts = _value_counts(labels)
    totals = counts.sum(axis=1)
    equal = (counts * (counts - 1)).sum(axis=1)
    if not len(counts):
        return Estimate(None, None, None, 0)
    shares = equal / (totals * (totals - 1))
    means = shares[_resampled(len(shares))].mean(axis=1)
    return _estimate(float(shares.mean()), means, len(shares))


def krippendorff_alpha(labels: Labels) -> Estimate:
    """α for nominal labels. 1 is perfect, 0 is what chance gives, below 0 is systematic disagreement."""
    import krippendorff

    counts = _value_counts(labels)
    if not _varies(counts):
        return Estimate(None, None, None, len(counts))

    def alpha(rows: Counts) -> float:
        return float(krippendorff.alpha(value_counts=rows, level_of_measurement="nominal"))

    drawn = (counts[rows] for rows in _resampled(len(counts)))
    return _estimate(alpha(counts), np.array([alpha(rows) for rows in drawn if _varies(rows)]), len(counts))


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Estimate:
    """κ of two raters over the same units, in the same order.

    Raises:
        ValueError: the two have different lengths.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    if len(first) != len(second):
        raise ValueError(f"{len(first)} labels cannot be compared with {len(second)}")
    values = sorted({*first, *second})
    if len(values) < 2:
        return Estimate(None, None, None, len(first))
    place = {value: i for i, value in enumerate(values)}
    pairs = np.array([(place[a], place[b]) for a, b in zip(first, second, strict=True)])

    def kappa(rows: npt.NDArray[np.int64]) -> float | None:
        table = np.zeros((len(values), len(values)))
        np.add.at(table, (rows[:, 0], rows[:, 1]), 1)
        if not _varies(np.stack([table.sum(axis=0) + table.sum(axis=1)]).astype(np.int64)):
            return None
        return float(cohens_kappa(table, return_results=False))

    drawn = [kappa(pairs[rows]) for rows in _resampled(len(pairs))]
    return _estimate(kappa(pairs), np.array([value for value in drawn if value is not None]), len(pairs))


def agreement_on(question: str, labels: Labels) -> Agreement:
    """Everything about one question; pairs in order of name, those without a common unit left out."""
    raters = sorted({rater for unit in labels.values() for rater in unit}, key=str)
    pairs = []
    for first, second in combinations(raters, 2):
        both = [unit for unit in labels.values() if first in unit and second in unit]
        if both:
            pairs.append(
                PairAgreement(
                    str(first),
                    str(second),
                    percent_agreement({i: {0: u[first], 1: u[second]} for i, u in enumerate(both)}),
                    cohen_kappa([unit[first] for unit in both], [unit[second] for unit in both]),
                )
            )
    return Agreement(question, percent_agreement(labels), krippendorff_alpha(labels), tuple(pairs))


def verdict_labels(queue: Queue) -> Labels:
    """{turn: {annotator: verdict}} of the current labels in a queue."""
    rows = Annotation.objects.current().filter(queue=queue)
    return _by_unit(rows.values_list("turn", "annotator__username", "verdict"))


def relevance_labels(queue: Queue) -> Labels:
    """{(turn, rank): {annotator: relevance}}, without "unsure"."""
    current = Annotation.objects.current().filter(queue=queue)
    rows = ContextMark.objects.filter(annotation__in=current).exclude(relevance=ContextMark.Relevance.UNSURE)
    return _by_unit(rows.values_list("retrieval", "annotation__annotator__username", "relevance"))


def agreement_of(queue: Queue) -> tuple[Agreement, ...]:
    """Agreement on the verdict and on the relevance of passages."""
    return (
        agreement_on("Verdict", verdict_labels(queue)),
        agreement_on("Relevance of passages", relevance_labels(queue)),
    )


def _by_unit(rows: object) -> Labels:
    labels: dict[Hashable, dict[Hashable, str]] = {}
    for unit, rater, value in rows:  # type: ignore[attr-defined]
        labels.setdefault(unit, {})[rater] = value
    return labels


def _value_counts(labels: Labels) -> Counts:
    """Matrix units × values of the units with at least two labels."""
    values = sorted({value for unit in labels.values() for value in unit.values()})
    rows = [[list(u.values()).count(value) for value in values] for u in labels.values() if len(u) > 1]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(values))


def _varies(counts: Counts) -> bool:
    return bool(len(counts)) and int((counts.sum(axis=0) > 0).sum()) > 1


def _resampled(n: int) -> npt.NDArray[np.int64]:
    """Row numbers of `RESAMPLES` draws with replacement; the same for the same n, so that a page does not flicker."""
    return np.random.default_rng(_SEED).integers(0, n, size=(RESAMPLES, n))


def _estimate(value: float | None, draws: npt.NDArray[np.float64], n: int) -> Estimate:
    if value is None or not len(draws):
        return Estimate(value, None, None, n)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)

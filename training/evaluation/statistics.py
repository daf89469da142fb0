"""Paired comparisons with their uncertainty. Pure functions of numbers; seeds make them repeatable to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
FLIPS = 10_000
EXACT_FLIPS = 12
"""Up to so many clusters with any difference, all ways to flip their signs are counted instead of drawn."""

LEAST_CLUSTERS = 5
"""From which on an interval is told: of fewer there are too few different resamples (of one, one) to say anything."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval. ``n`` items in ``clusters`` clusters."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class PairedTest:
    """Candidate against today on the same items. ``better``/``worse``: items that only one of them got right.

    ``p_permutation``: of `sign_flip`, which knows of clusters; McNemar's takes every item for independent."""

    difference: Estimate
    better: int
    worse: int
    p_mcnemar: float
    minimum_detectable: float
    p_permutation: float = 1.0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def cluster_bootstrap(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """Mean with a percentile interval from resampling whole clusters (Davison & Hinkley 1997, §3.8).

    Items of one document or conversation are alike; resampling items would make the interval too narrow. Pass paired
    differences for a paired interval.

    Raises:
        ValueError: no values, or another number of clusters than of values.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values with {len(clusters)} clusters cannot be resampled")
    return cluster_ratio(values, np.ones(len(values)).tolist(), clusters, seed=seed, confidence=confidence)


def cluster_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[str],
    *,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Sum over sum with a percentile interval from resampling whole clusters: a precision, an F1, a ratio of means.

    Draws whose denominator is 0 say nothing and are left out. ``n`` is the number of items.

    Raises:
        ValueError: nothing to resample, different lengths, or denominators that sum to 0.
    """
    if not numerators or not len(numerators) == len(denominators) == len(clusters):
        raise ValueError(f"{len(numerators)} values with {len(clusters)} clusters cannot be resampled")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(numerators, dtype=np.float64)).astype(np.float64)
    counts = np.bincount(index, weights=np.asarray(denominators, dtype=np.float64)).astype(np.float64)
    if counts.sum() == 0:
        raise ValueError("the denominators sum to 0")
    weights = _draws(len(names), seed)
    above, below = _products(weights, sums), _products(weights, counts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(above[below > 0] / below[below > 0], [tail, 1 - tail])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), len(numerators), len(names))


def interval_told(estimate: Mapping[str, float]) -> tuple[float, float] | None:
    """Low and high of a stored `Estimate`; None where its clusters are too few for any."""
    if estimate.get("clusters", LEAST_CLUSTERS) < LEAST_CLUSTERS:
        return None
    return estimate["low"], estimate["high"]


def share_told(estimate: Mapping[str, float]) -> tuple[float, float] | None:
    """As `interval_told`, of a share. Where it is 0 or 1 every resample is too, and Wilson's interval over the
    questions is told instead: it knows that they are not all questions there are, though not that some are alike."""
    from statsmodels.stats.proportion import proportion_confint

    told, value, n = interval_told(estimate), estimate["value"], int(estimate["n"])
    if told is None or not n or 0 < value < 1 or told[0] != told[1]:
        return told
    low, high = proportion_confint(round(value * n), n, alpha=1 - CONFIDENCE, method="wilson")
    return float(low), float(high)


def _products(weights: NDArray[np.uint16] | NDArray[np.int8], values: NDArray[np.float64]) -> NDArray[np.float64]:
    # In pieces: all draws of five thousand clusters as floats would be 400 MB.
    return np.concatenate([weights[i : i + 1000].astype(np.float64) @ values for i in range(0, len(weights), 1000)])


@lru_cache(maxsize=4)
def _draws(k: int, seed: int) -> NDArray[np.uint16]:
    """How often each of ``k`` clusters comes in each of RESAMPLES draws with replacement, shape (RESAMPLES, k).

    Drawing takes nearly all of the time, and one evaluation asks for the same numbers of clusters again and again.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(k, np.full(k, 1 / k), size=RESAMPLES).astype(np.uint16)


def sign_flip(values: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> float:
    """Two-sided p of paired differences by flipping signs (Fisher's randomisation test for pairs), whole clusters at a
    time: were the arms alike, either could have had the other's answers, document by document.

    All ways are counted for up to `EXACT_FLIPS` clusters; else `FLIPS` are drawn, and (k + 1) / (n + 1) is never 0
    (Phipson & Smyth 2010).

    Raises:
        ValueError: no values, or another number of clusters than of values.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values with {len(clusters)} clusters cannot be permuted")
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
    some = sums[np.abs(sums) > 1e-12]
    if not len(some):
        return 1.0
    observed = abs(float(sums.sum())) - 1e-9
    if len(some) <= EXACT_FLIPS:
        ways = np.arange(2 ** len(some))[:, None] >> np.arange(len(some))[None, :] & 1
        return float(np.mean(np.abs((1 - 2 * ways) @ some) >= observed))
    hits = int(np.sum(np.abs(_products(_signs(len(sums), seed), sums)) >= observed))
    return (hits + 1) / (FLIPS + 1)


@lru_cache(maxsize=4)
def _signs(k: int, seed: int) -> NDArray[np.int8]:
    """−1 or 1 for each of ``k`` clusters in each of FLIPS draws."""
    drawn = np.random.default_rng(seed).integers(0, 2, size=(FLIPS, k), dtype=np.int8)
    return (1 - 2 * drawn).astype(np.int8)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p of several tests (Holm 1979): below α, the test stands although it was one of many."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda entry: entry[1])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def attempt_share(number: int) -> float:
    """The part of α that the ``number``-th attempt (from 1) may spend: all, then 1/(k·(k − 1)) for each k after it.

    Attempts come one after the other, and nobody knows how many there will be: so each gets a part fixed beforehand
    (alpha spending, Foster & Stine 2008; its control of any false success under whatever dependence is Bonferroni's,
    Tian & Ramdas 2021, §2), where Holm would need all p-values at once and would change verdicts that were given. A
    two-sided test at α promotes what is no better at most α/2 of the time; the other α/2 is what 1/2 + 1/6 + 1/12 + …
    = 1 of it share, so that over any number of attempts together a false promotion stays at most α likely.

    Raises:
        ValueError: attempts are counted from 1.
    """
    if number < 1:
        raise ValueError("attempts are counted from 1")
    return 1.0 if number == 1 else 1.0 / (number * (number - 1))


def power_of(n: int, discordance: float, effect: float) -> float:
    """Power of the two-sided paired test at 5 % for a true difference (normal approximation, Connor 1987)."""
    from scipy.stats import norm

    if n == 0 or discordance <= 0:
        return 0.0
    d = max(discordance, abs(effect))
    spread = math.sqrt(max(d - effect**2, 1e-12))
    return float(norm.cdf((abs(effect) * math.sqrt(n) - norm.ppf(0.975) * math.sqrt(d)) / spread))


def mcnemar_exact(better: int, worse: int) -> float:
    """Two-sided exact p of McNemar's test: under no difference, discordant items fall either way alike."""
    from scipy.stats import binomtest

    n = better + worse
    return float(binomtest(min(better, worse), n, 0.5).pvalue) if n else 1.0


def minimum_detectable_effect(n: int, discordance: float, *, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided paired test at 5 % finds with ``power`` (normal approximation).

    Solves Δ = (z₁₋α⸝₂·√d + z_power·√(d − Δ²)) / √n for Δ, ``d`` being the share of discordant pairs (Connor 1987).
    """
    from scipy.stats import norm

    if n == 0:
        return 1.0
    d = max(discordance, 1.0 / n)
    alpha, beta = norm.ppf(0.975), norm.ppf(power)
    effect = (alpha + beta) * math.sqrt(d / n)
    for _ in range(20):
        effect = (alpha * math.sqrt(d) + beta * math.sqrt(max(d - effect**2, 0.0))) / math.sqrt(n)
    return float(min(effect, 1.0))


def paired_test(
    candidate: Sequence[float], today: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> PairedTest:
    """Compares two arms on the same items, in the same order.

    Raises:
        ValueError: the arms have different numbers of items.
    """
    if len(candidate) != len(today):
        raise ValueError(f"{len(candidate)} against {len(today)} items are not pairs")
    difference = [c - t for c, t in zip(candidate, today, strict=True)]
    better = sum(d > 0 for d in difference)
    worse = sum(d < 0 for d in difference)
    return PairedTest(
        difference=cluster_bootstrap(difference, clusters, seed=seed),
        better=better,
        worse=worse,
        p_mcnemar=mcnemar_exact(better, worse),
        minimum_detectable=minimum_detectable_effect(len(difference), (better + worse) / len(difference)),
        p_permutation=sign_flip(difference, clusters, seed=seed),
    )

"""Paired comparisons with their uncertainty. Pure functions of numbers; seeds make them repeatable to the bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95


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
    """Candidate against today on the same items. ``better``/``worse``: items that only one of them got right."""

    difference: Estimate
    better: int
    worse: int
    p_mcnemar: float
    minimum_detectable: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def cluster_bootstrap(values: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Estimate:
    """Mean with a percentile interval from resampling whole clusters (Davison & Hinkley 1997, §3.8).

    Items of one document or conversation are alike; resampling items would make the interval too narrow. Pass paired
    differences for a paired interval.

    Raises:
        ValueError: no values, or another number of clusters than of values.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values with {len(clusters)} clusters cannot be resampled")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
    counts = np.bincount(index).astype(np.float64)
    weights = _draws(len(names), seed).astype(np.float64)
    means = (weights @ sums) / (weights @ counts)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high), len(values), len(names))


@lru_cache(maxsize=8)
def _draws(k: int, seed: int) -> NDArray[np.uint16]:
    """How often each of ``k`` clusters comes in each of RESAMPLES draws with replacement, shape (RESAMPLES, k).

    Drawing takes nearly all of the time, and one evaluation asks for the same numbers of clusters again and again.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(k, np.full(k, 1 / k), size=RESAMPLES).astype(np.uint16)


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
    )

"""Comparing two arms while the data come in: intervals and alarms that hold at every look, however often one looks.

Pure functions of counts, means and variances; numbers or numpy arrays of them.

Interval of the difference of two means: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics, 2024), theorem
2.2, with the tuning of their section B.2; the two-sample form is the one in use at GrowthBook. A test at 5 % that is
repeated after every 25 users is wrong about two times in five; this one keeps its promise at all looks together.

Share of the arms: the Bayes factor of a beta-binomial against the declared share, a non-negative martingale under that
share, so that it passes 1/alpha with a probability of at most alpha (Lindon and Malek, "Anytime-valid inference for
multinomial count data", NeurIPS 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = TypeVar("Numbers", float, NDArray[np.float64])

BEST_AT = 500
"""Units of both arms together at which the interval is as tight as this method can be."""
SHARE_PRIOR = 100.0
"""How many units the prior of the share test is worth: small finds gross faults soon, large finds small ones at all."""


@dataclass(frozen=True)
class Sums:
    """One arm: ``n`` units, ``mean`` and sample ``variance`` of their outcome."""

    n: int
    mean: float
    variance: float


@dataclass(frozen=True)
class Interval:
    """Candidate minus control, with an interval that holds at every look; ``p`` is always valid, too."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def tuning(alpha: float, best_at: int = BEST_AT) -> float:
    """The mixture's rho for which the interval is tightest after ``best_at`` units."""
    log = -2.0 * math.log(alpha)
    return math.sqrt((log + math.log(log + 1.0)) / best_at)


def half_width(squared_error: Numbers, n: Numbers, *, alpha: float, best_at: int = BEST_AT) -> Numbers:
    """Half the width of the interval. ``squared_error``: of the difference (its standard error, squared); ``n``: units
    of both arms together."""
    rho2 = tuning(alpha, best_at) ** 2
    spread = n * rho2 + 1.0
    width: Numbers = np.sqrt(squared_error * 2.0 * spread / (n * rho2) * np.log(np.sqrt(spread) / alpha))
    return width


def always_valid_p(
    difference: float, squared_error: float, n: int, *, alpha: float = 0.05, best_at: int = BEST_AT
) -> float:
    """Below ``alpha`` exactly when the interval of this alpha leaves out 0."""
    if squared_error <= 0:
        return 1.0 if difference == 0 else 0.0
    rho2 = tuning(alpha, best_at) ** 2
    spread = n * rho2 + 1.0
    exponent = rho2 * difference**2 * n / squared_error / (2.0 * spread)
    return min(1.0, math.exp(min(0.5 * math.log(spread) - exponent, 0.0)))


def compare(control: Sums, candidate: Sums, *, alpha: float = 0.05, best_at: int = BEST_AT) -> Interval:
    """Candidate minus control.

    Raises:
        ValueError: an arm holds fewer than two units.
    """
    if control.n < 2 or candidate.n < 2:
        raise ValueError("Each arm needs two units or more.")
    n = control.n + candidate.n
    squared_error = control.variance / control.n + candidate.variance / candidate.n
    difference = candidate.mean - control.mean
    half = float(half_width(squared_error, float(n), alpha=alpha, best_at=best_at))
    p = always_valid_p(difference, squared_error, n, alpha=alpha, best_at=best_at)
    return Interval(difference, difference - half, difference + half, p, n)


def steadied(n: Numbers, mean: Numbers, variance: Numbers) -> Numbers:
    """The variance of an outcome from 0 to 1, as if one unit more had been 0, and one 1.

    Thirty units of which none did something have a sample variance of 0 and an interval without width; the normal
    approximation is not to be believed there. For many units it is the sample variance.
    """
    total = n + 2.0
    centre = (n * mean + 1.0) / total
    return (n * (variance + mean**2) + 1.0) / total - centre**2


def compare_rates(control: Sums, candidate: Sums, *, alpha: float = 0.05, best_at: int = BEST_AT) -> Interval:
    """As `compare`, for outcomes from 0 to 1, and careful where they are rare and an arm is small: neither arm counts
    as more certain than both together are. Of canaries with 5 % of the units and an outcome that 1 in 20 has, plain
    variances call 9 of 100 equal ones better; with this, at most 3 in all shares and rates tried
    (``manage.py simulate_experiment``)."""
    variances = careful_variances(
        (float(control.n), control.mean, control.variance), (float(candidate.n), candidate.mean, candidate.variance)
    )
    careful = [Sums(arm.n, arm.mean, float(value)) for arm, value in zip((control, candidate), variances, strict=True)]
    return compare(*careful, alpha=alpha, best_at=best_at)


def careful_variances(
    control: tuple[Numbers, Numbers, Numbers], candidate: tuple[Numbers, Numbers, Numbers]
) -> tuple[Numbers, Numbers]:
    """Of (n, mean, variance) of each arm: `steadied`, and none below that of both arms together."""
    own = steadied(*control), steadied(*candidate)
    pooled = (control[0] * own[0] + candidate[0] * own[1]) / (control[0] + candidate[0])
    return np.maximum(own[0], pooled), np.maximum(own[1], pooled)


def units_needed(effect: float, variance: float, share: float, *, alpha: float = 0.05, best_at: int = BEST_AT) -> int:
    """Units of both arms together until an effect of this size would be seen: until half the interval is no wider.

    Args:
        effect: difference of the means; its sign does not matter.
        variance: of the outcome in either arm.
        share: of the candidate, above 0 and below 1.
    """
    size = abs(effect)
    if size <= 0:
        raise ValueError("An effect of nothing is never seen.")
    per_unit = variance / share + variance / (1.0 - share)
    low, high = 2, 4
    while half_width(per_unit / high, float(high), alpha=alpha, best_at=best_at) > size:
        low, high = high, high * 2
        if high > 10**12:
            return high
    while high - low > 1:
        middle = (low + high) // 2
        if half_width(per_unit / middle, float(middle), alpha=alpha, best_at=best_at) > size:
            low = middle
        else:
            high = middle
    return high


def share_p(candidate: int, n: int, share: float, *, prior: float = SHARE_PRIOR) -> float:
    """Always-valid p of the sample ratio: small when ``candidate`` of ``n`` units do not fit the declared share."""
    if n == 0:
        return 1.0
    a, b = prior * share, prior * (1.0 - share)
    log_factor = (
        _log_beta(a + candidate, b + n - candidate)
        - _log_beta(a, b)
        - candidate * math.log(share)
        - (n - candidate) * math.log1p(-share)
    )
    return min(1.0, math.exp(-max(log_factor, 0.0)))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

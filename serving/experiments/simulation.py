"""Experiments that never happened, by the thousand: how often the intervals are wrong, and how soon they see something.

Uses the functions that decide real experiments, on arrays: units come one by one, are drawn to an arm, and after every
25 somebody looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.experiments.looking import ALPHA, GUARD_UNITS, START_UNITS
from serving.experiments.sequential import BEST_AT, careful_variances, half_width

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERY = 25
PLAIN_Z = 1.96


@dataclass(frozen=True)
class Scenario:
    """``spread``: units ask several questions each, and differ in how often something happens to them (beta with this
    many pseudo-units); ``by_question``: counted as if the questions were independent, which they are not then."""

    name: str
    control: float
    candidate: float
    share: float = 0.5
    alpha: float = ALPHA
    least: int = START_UNITS
    tolerance: float = 0.0
    plain: bool = False
    spread: float = 0.0
    by_question: bool = False


@dataclass(frozen=True)
class Outcome:
    """Shares of the runs that ever called the candidate worse (more of it) or better, and after how many units of both
    arms half of those that did had done so."""

    worse: float
    better: float
    units: float | None

    @property
    def either(self) -> float:
        return self.worse + self.better


SCENARIOS = (
    Scenario("A/A, 70 %, a plain z test at each look", 0.7, 0.7, plain=True),
    *(Scenario(f"A/A, {rate:.0%}", rate, rate) for rate in (0.02, 0.1, 0.3, 0.7)),
    Scenario("A/A, 10 %, a fifth for the candidate", 0.1, 0.1, share=0.2),
    Scenario("A/A, 20 %, users ask 5 times and differ: by user", 0.2, 0.2, spread=2.0),
    Scenario("A/A, 20 %, users ask 5 times and differ: by question", 0.2, 0.2, spread=2.0, by_question=True),
    Scenario("70 % to 75 %", 0.7, 0.75),
    Scenario("70 % to 80 %", 0.7, 0.8),
    Scenario("15 % to 10 % (trouble)", 0.15, 0.10),
)
_GUARD = {"alpha": ALPHA / 6, "least": GUARD_UNITS, "tolerance": 0.03}
GUARDS = (
    Scenario("canary 5 %, no harm, 10 %", 0.1, 0.1, share=0.05, **_GUARD),  # type: ignore[arg-type]
    Scenario("canary 5 %, exactly what is tolerated, 10 % to 13 %", 0.1, 0.13, share=0.05, **_GUARD),  # type: ignore[arg-type]
    Scenario("canary 5 %, 10 % to 30 %", 0.1, 0.3, share=0.05, **_GUARD),  # type: ignore[arg-type]
    Scenario("canary 5 %, 10 % to 50 %", 0.1, 0.5, share=0.05, **_GUARD),  # type: ignore[arg-type]
    Scenario("canary 10 %, 10 % to 50 %", 0.1, 0.5, share=0.1, **_GUARD),  # type: ignore[arg-type]
    Scenario("A/B, 10 % to 20 %", 0.1, 0.2, **_GUARD),  # type: ignore[arg-type]
)
"""One of six guardrails, at its part of 5 %."""


def simulate(scenario: Scenario, *, runs: int, horizon: int, seed: int) -> Outcome:
    """``horizon``: units of both arms together."""
    generator = np.random.default_rng(seed)
    worse, better, when = 0, 0, []
    for _ in range(runs):
        above, below, units = _run(scenario, horizon, generator)
        first_above, first_below = (int(found.argmax()) if found.any() else len(units) for found in (above, below))
        if min(first_above, first_below) < len(units):
            worse += first_above <= first_below
            better += first_above > first_below
            when.append(units[min(first_above, first_below)])
    return Outcome(worse / runs, better / runs, float(np.median(when)) if when else None)


def _run(
    scenario: Scenario, horizon: int, generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """At each look: whether the interval lies above what is tolerated, below its negative, and the units so far."""
    is_candidate = generator.random(horizon) < scenario.share
    values, weights = _values(scenario, is_candidate, generator)
    looks = np.arange(EVERY, horizon + 1, EVERY)
    arms = [_sums(values, weights * (is_candidate == which), looks) for which in (False, True)]
    (n0, m0, v0), (n1, m1, v1) = arms
    counted = [np.cumsum(is_candidate == which)[looks - 1] for which in (False, True)]
    enough = np.minimum(*counted) >= scenario.least
    if scenario.plain:
        half = PLAIN_Z * np.sqrt(v0 / n0 + v1 / n1)
    else:
        v0, v1 = careful_variances((n0, m0, v0), (n1, m1, v1))
        half = half_width(v0 / n0 + v1 / n1, n0 + n1, alpha=scenario.alpha, best_at=BEST_AT)
    difference = m1 - m0
    return (
        enough & (difference - half > scenario.tolerance),
        enough & (difference + half < -scenario.tolerance),
        looks,
    )


def _values(
    scenario: Scenario, is_candidate: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each unit's mean, and how often it counts."""
    rate = np.where(is_candidate, scenario.candidate, scenario.control)
    one = np.ones(len(rate))
    if not scenario.spread:
        return (generator.random(len(rate)) < rate).astype(np.float64), one
    own = generator.beta(rate * scenario.spread, (1 - rate) * scenario.spread)
    asked = 1 + generator.poisson(4, len(rate))
    means = generator.binomial(asked, own) / asked
    return means, asked.astype(np.float64) if scenario.by_question else one


def _sums(
    values: NDArray[np.float64], weights: NDArray[np.float64], looks: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(n, mean, variance) at each look. By question, what happened counts as that many independent yes or no."""
    n = np.maximum(np.cumsum(weights)[looks - 1], 2.0)
    mean = np.cumsum(weights * values)[looks - 1] / n
    if weights.max(initial=0.0) > 1:
        return n, mean, mean * (1 - mean)
    variance = (np.cumsum(weights * values**2)[looks - 1] - n * mean**2) / (n - 1)
    return n, mean, np.maximum(variance, 0.0)

"""The intervals: what they must promise at every look, by hand values, properties and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.experiments.sequential import (
    Sums,
    always_valid_p,
    compare,
    compare_rates,
    half_width,
    share_p,
    steadied,
    tuning,
    units_needed,
)
from serving.experiments.simulation import Scenario, simulate

shares = st.floats(0.0, 1.0)
counts = st.integers(50, 5000)


def bernoulli(n: int, mean: float) -> Sums:
    return Sums(n, mean, mean * (1 - mean) * n / (n - 1))


def test_hand_values() -> None:
    """Computed apart, from the published formula: alpha .05, tightest at 500, 300 units in each arm."""
    rho = math.sqrt((-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 500)
    assert tuning(0.05) == pytest.approx(rho)
    squared = 0.7 * 0.3 / 300 * 2
    inner = 600 * rho**2 + 1
    expected = math.sqrt(600 * squared) * math.sqrt(2 * inner / (600**2 * rho**2) * math.log(math.sqrt(inner) / 0.05))
    assert float(half_width(squared, 600.0, alpha=0.05)) == pytest.approx(expected)
    assert 1.5 < expected / (1.96 * math.sqrt(squared)) < 1.6  # what holding at every look costs


@given(counts, counts, shares, shares)
def test_p_is_small_exactly_when_the_interval_leaves_out_zero(n: int, m: int, p: float, q: float) -> None:
    one = compare(bernoulli(n, p), bernoulli(m, q))
    assert (one.p < 0.05) == (one.low > 0 or one.high < 0) or one.p == pytest.approx(0.05)
    assert one.low <= one.difference <= one.high


@given(counts, counts, shares, shares)
def test_rates_are_compared_with_more_care_never_less(n: int, m: int, p: float, q: float) -> None:
    plain, careful = compare(bernoulli(n, p), bernoulli(m, q)), compare_rates(bernoulli(n, p), bernoulli(m, q))
    assert careful.difference == plain.difference
    mirrored = compare_rates(bernoulli(m, q), bernoulli(n, p))
    assert mirrored.low == pytest.approx(-careful.high)
    assert steadied(float(n), p, p * (1 - p)) > 0


def test_nothing_is_sure_of_thirty_units_without_an_event() -> None:
    assert compare(Sums(600, 0.05, 0.0475), Sums(30, 0.0, 0.0)).high < 0  # what plain variances would say
    assert compare_rates(Sums(600, 0.05, 0.0475), Sums(30, 0.0, 0.0)).high > 0


def test_too_few_units_are_refused() -> None:
    with pytest.raises(ValueError, match="two units"):
        compare(Sums(1, 0.0, 0.0), Sums(100, 0.5, 0.25))
    with pytest.raises(ValueError, match="never seen"):
        units_needed(0.0, 0.25, 0.5)


def test_needed_units_are_where_the_interval_becomes_that_narrow() -> None:
    n = units_needed(0.1, 0.21, 0.5)
    for units, enough in ((n, True), (n - 1, False)):
        squared = 0.21 / (units / 2) * 2
        assert (float(half_width(squared, float(units), alpha=0.05)) <= 0.1) is enough
    assert units_needed(0.1, 0.21, 0.1) > 2 * n


def test_no_difference_and_no_variance() -> None:
    assert always_valid_p(0.0, 0.0, 100) == 1.0
    assert always_valid_p(0.1, 0.0, 100) == 0.0


@pytest.mark.parametrize(("rate", "share"), [(0.7, 0.5), (0.05, 0.05), (0.1, 0.2)])
def test_peeking_all_the_time_is_wrong_at_most_as_often_as_promised(rate: float, share: float) -> None:
    """A/A with a look after every 25 units. 400 runs: 5 % true would show at most 8 % with 99 % certainty."""
    found = simulate(Scenario("A/A", rate, rate, share=share, least=20), runs=400, horizon=2000, seed=7)
    assert found.either <= 0.08


def test_a_difference_of_ten_points_is_found() -> None:
    found = simulate(Scenario("ten points", 0.7, 0.8), runs=100, horizon=3000, seed=8)
    assert found.worse >= 0.95


def test_the_simulation_decides_as_experiments_do() -> None:
    """The same draws, one by one through `compare_rates`: about as often."""
    generator = np.random.default_rng(9)
    one_by_one = sum(_calls_a_difference(generator, 0.3, 0.45, 0.5, horizon=600) for _ in range(40)) / 40
    at_once = simulate(Scenario("x", 0.3, 0.45, least=20), runs=400, horizon=600, seed=9).either
    assert abs(one_by_one - at_once) < 0.25  # three standard deviations of 40 runs


def _calls_a_difference(
    generator: np.random.Generator, control: float, candidate: float, share: float, horizon: int = 2000
) -> bool:
    arm = generator.random(horizon) < share
    outcome = generator.random(horizon) < np.where(arm, candidate, control)
    for n in range(25, horizon + 1, 25):
        parts = [outcome[:n][arm[:n] == which] for which in (False, True)]
        if min(len(part) for part in parts) < 20:
            continue
        one = compare_rates(*(Sums(len(part), float(part.mean()), float(part.var(ddof=1))) for part in parts))
        if one.low > 0 or one.high < 0:
            return True
    return False


def test_the_alarm_on_shares_is_rare_when_they_are_right_and_sure_when_not() -> None:
    generator = np.random.default_rng(9)
    false = found = 0
    for _ in range(400):
        right, wrong = (np.cumsum(generator.random(2000) < p)[24::25] for p in (0.1, 0.16))
        looks = range(25, 2001, 25)
        false += any(share_p(int(k), n, 0.1) < 0.001 for k, n in zip(right, looks, strict=True))
        found += any(share_p(int(k), n, 0.1) < 0.001 for k, n in zip(wrong, looks, strict=True))
    assert false <= 2
    assert found >= 390
    assert share_p(0, 0, 0.5) == 1.0

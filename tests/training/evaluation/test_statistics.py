from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from training.evaluation.gate import GateRule, GateRuleError, judge
from training.evaluation.simulation import World, simulate
from training.evaluation.statistics import (
    cluster_bootstrap,
    cluster_ratio,
    holm,
    interval_told,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_test,
    power_of,
    share_told,
    sign_flip,
)
from training.models import GateVerdict


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        sample = (rng.random(150) < 0.6).astype(float)
        estimate = cluster_bootstrap(sample.tolist(), [str(i) for i in range(150)])
        covered += estimate.low <= 0.6 <= estimate.high
    assert 0.90 <= covered / 200 <= 0.99


def test_alike_items_of_one_cluster_widen_the_interval():
    values = [1.0] * 50 + [0.0] * 50
    alone = cluster_bootstrap(values, [str(i) for i in range(100)])
    together = cluster_bootstrap(values, [str(i // 10) for i in range(100)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_same_seed_gives_the_same_interval():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert cluster_bootstrap(values, list("abcde"), seed=4) == cluster_bootstrap(values, list("abcde"), seed=4)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_symmetric_and_a_probability(b: int, c: int):
    p = mcnemar_exact(b, c)
    assert 0 < p <= 1
    assert p == mcnemar_exact(c, b)
    if b + c:
        assert p == pytest.approx(binomtest(b, b + c).pvalue)


@given(st.integers(20, 2000), st.floats(0.02, 0.6))
def test_more_items_detect_smaller_effects(n: int, d: float):
    assert minimum_detectable_effect(2 * n, d) <= minimum_detectable_effect(n, d) + 1e-9


def test_the_stated_effect_is_found_with_the_stated_power():
    """200 pairs, 30 % discordant: the simulated power at the stated effect is 80 %, give or take."""
    effect = minimum_detectable_effect(200, 0.3)
    rng = np.random.default_rng(2)
    better, worse = (0.3 + effect) / 2, (0.3 - effect) / 2
    found = sum(
        mcnemar_exact(*rng.multinomial(200, [better, worse, 1 - better - worse])[:2].tolist()) < 0.05
        for _ in range(600)
    )
    assert 0.70 <= found / 600 <= 0.88


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_swapping_the_arms_mirrors_the_result(pairs: list[tuple[bool, bool]]):
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    names = [str(i % 7) for i in range(len(pairs))]
    forth, back = paired_test(a, b, names), paired_test(b, a, names)
    assert forth.difference.value == pytest.approx(-back.difference.value)
    assert (forth.better, forth.worse) == (back.worse, back.better)


def of(gain: int, loss: int, n: int = 200):
    candidate = [1.0] * gain + [0.0] * loss + [1.0] * (n - gain - loss)
    today = [0.0] * gain + [1.0] * loss + [1.0] * (n - gain - loss)
    return paired_test(candidate, today, [str(i) for i in range(n)])


def test_a_clear_gain_passes_a_tie_is_not_proven_a_loss_is_worse():
    assert judge(GateRule(margins={}), of(40, 5), {})[0] is GateVerdict.PASSED
    assert judge(GateRule(margins={}), of(10, 9), {})[0] is GateVerdict.NOT_PROVEN
    assert judge(GateRule(margins={}), of(5, 40), {})[0] is GateVerdict.WORSE


def test_a_guardrail_beyond_its_margin_stops_a_clear_gain():
    rule = GateRule(margins={"over_refusal": 0.03})
    verdict, table = judge(rule, of(40, 5), {"over_refusal": of(0, 20).difference})
    assert verdict is GateVerdict.NOT_PROVEN
    assert [line.passed for line in table] == [True, False]


def test_an_unknown_margin_is_refused():
    with pytest.raises(GateRuleError):
        GateRule.from_dict({"margins": {"beauty": 1}})


def test_flipping_signs_counts_every_way_where_there_are_few_clusters() -> None:
    # Of 2^4 ways to flip four equal differences, two are as far from zero as all of one sign.
    assert sign_flip([1.0] * 4, list("abcd")) == 2 / 16
    assert sign_flip([1.0] * 4, ["a"] * 4) == 1.0  # one document proves nothing
    assert sign_flip([0.0, 0.0], ["a", "b"]) == 1.0
    with pytest.raises(ValueError, match="cannot be permuted"):
        sign_flip([], [])


def test_flipping_signs_agrees_with_mcnemar_where_every_question_stands_alone() -> None:
    values = [1.0] * 30 + [-1.0] * 14 + [0.0] * 156
    names = [str(i) for i in range(200)]
    assert sign_flip(values, names) == pytest.approx(mcnemar_exact(30, 14), abs=0.01)
    assert sign_flip(values, names) == sign_flip(values, names)
    alike = [str(i // 10) for i in range(200)]
    assert sign_flip(values, alike) > sign_flip(values, names)


def test_holm_is_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    draw = np.random.default_rng(5)
    for _ in range(20):
        p = {f"m{i}": float(x) for i, x in enumerate(draw.random(7) ** 3)}
        expected = multipletests(list(p.values()), method="holm")[1]
        assert list(holm(p).values()) == pytest.approx(expected)
    assert holm({}) == {}


@given(st.integers(50, 1000), st.floats(0.05, 0.5))
def test_the_detectable_effect_has_the_power_it_is_named_for(n: int, d: float) -> None:
    effect = minimum_detectable_effect(n, d)
    if effect < d:
        assert power_of(n, d, effect) == pytest.approx(0.8, abs=0.02)
    assert power_of(n, d, 0.0) == pytest.approx(0.025, abs=0.001)


def test_a_ratio_is_resampled_with_its_denominator() -> None:
    found = cluster_ratio([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0], list("abcd"))
    assert found.value == pytest.approx(2 / 3)
    assert 0 <= found.low <= found.value <= found.high <= 1
    with pytest.raises(ValueError, match="sum to 0"):
        cluster_ratio([0.0], [0.0], ["a"])


def test_a_simulated_gate_promotes_hardly_ever_without_a_difference() -> None:
    """Forty runs, so that the suite stays quick; `manage.py simulate_evaluation` does a thousand."""
    world = World(questions=90, per_document=3)
    none = simulate(world, runs=40)
    assert none.promoted <= 0.1
    assert none.covered >= 0.85
    better = simulate(replace(world, effect=0.15, uneven=0.02), runs=40)
    assert better.promoted > none.promoted + 0.3
    assert simulate(world, runs=40) == none
    with pytest.raises(ValueError, match="leaves 0"):
        simulate(replace(world, rate=0.9), runs=1)


def test_no_interval_is_told_of_too_few_clusters() -> None:
    one = cluster_bootstrap([1.0, 0.0, 1.0, 0.0], ["a"] * 4).as_dict()
    assert one["low"] == one["high"] == 0.5  # each resample of one document is that document
    assert interval_told(one) is share_told(one) is None
    five = cluster_bootstrap([1.0, 0.0, 1.0, 0.0, 1.0], list("abcde")).as_dict()
    assert interval_told(five) == share_told(five) == (five["low"], five["high"])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_none_or_all_has_wilsons_interval(value: float) -> None:
    found = cluster_bootstrap([value] * 300, [str(i) for i in range(300)]).as_dict()
    told = share_told(found)
    assert told is not None
    z2 = 1.959964**2
    assert told == pytest.approx((0.0, z2 / (300 + z2)) if value == 0 else (300 / (300 + z2), 1.0), abs=1e-6)
    assert interval_told(found) == (value, value)

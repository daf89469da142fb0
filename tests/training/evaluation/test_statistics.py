from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from training.evaluation.gate import GateRule, GateRuleError, judge
from training.evaluation.statistics import cluster_bootstrap, mcnemar_exact, minimum_detectable_effect, paired_test
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

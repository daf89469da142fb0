"""One minus sign in sentences and on pages, and figures in the unit of the table beside them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.templatetags.percent import points, signed
from training.retrieval import comparing, tuning
from training.signs import signed as written


def test_a_minus_is_a_minus() -> None:
    assert (written(-1.84), written(0.016, 3), written(0)) == ("−1.8", "+0.016", "+0.0")
    assert points(-0.018) == signed(-1.8) == written(-1.8)


@pytest.mark.parametrize(
    ("low", "said"),
    [(0.003, "finds right passages earlier: MRR +0.016 on"), (-0.012, "No difference is proven: MRR +0.016 on")],
)
def test_learned_retrieval_is_told_as_its_table_tells_it(low: float, said: str) -> None:
    change = {"value": 0.016, "low": low, "high": 0.028, "n": 1200}
    done: Any = SimpleNamespace(result={"tests": {"mrr": {"difference": change}}})
    assert said in tuning.sentence(done)
    assert f"(95 % {written(low, 3)} … +0.028, n = 1,200)" in tuning.sentence(done)


def test_a_comparison_is_told_as_its_table_tells_it() -> None:
    change = {"value": -0.02, "low": -0.03, "high": -0.01, "n": 300}
    first, second = SimpleNamespace(name="A"), SimpleNamespace(name="B")
    done: Any = SimpleNamespace(result={"tests": {"ndcg@10": {"difference": change}}}, first=first, second=second)
    assert comparing.sentence(done) == "“B” finds less than “A”: nDCG@10 −0.020 (95 % −0.030 … −0.010, n = 300)."

from __future__ import annotations

from training.data.split import bucket, is_validation


def test_a_group_falls_on_one_side_for_a_seed():
    shares = [is_validation(f"g{i}", share=0.1, seed=3) for i in range(4000)]
    assert 0.08 < sum(shares) / 4000 < 0.12
    assert bucket("g", 1) == bucket("g", 1) != bucket("g", 2)

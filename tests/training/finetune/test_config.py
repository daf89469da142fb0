from __future__ import annotations

import pytest

from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.methods import Counts


def test_defaults_travel_through_json() -> None:
    assert FinetuneConfig.from_dict(FinetuneConfig().as_dict()) == FinetuneConfig()


@pytest.mark.parametrize(
    "values",
    [
        {"rank": 0},
        {"rank": "16"},
        {"rank": True},
        {"learning_rate": 5},
        {"precision": "fp8"},
        {"keep": 1},
        {"colour": "red"},
        {"epochs": float("nan")},
        {"epochs": float("-inf")},
        {"rank": 10**400},
        {"learning_rate": -(10**400)},
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_setting(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        FinetuneConfig.from_dict(values)


def test_more_rows_mean_fewer_epochs_and_larger_steps() -> None:
    small, why = FinetuneConfig().resolve(rows=100, parameters=6_000_000)
    large, _ = FinetuneConfig().resolve(rows=9000, parameters=600_000_000)
    assert small.epochs is not None
    assert large.epochs is not None
    assert small.epochs > large.epochs
    assert (small.batch, large.batch) == (8, 32)
    assert small.learning_rate == 1e-3
    assert large.learning_rate == 2e-4
    assert len(why) == 3


def test_what_is_set_stays() -> None:
    chosen, why = FinetuneConfig(learning_rate=3e-4, epochs=1.0, batch=4).resolve(rows=10, parameters=1)
    assert (chosen.learning_rate, chosen.epochs, chosen.batch, why) == (3e-4, 1.0, 4, [])


def test_each_stage_has_its_own_rate_and_kto_never_a_batch_of_one() -> None:
    config = FinetuneConfig(learning_rate=1e-3, epochs=4.0, batch=1, micro_batch=1, preference_epochs=2.0)
    supervised, _ = config.for_stage("sft").resolve(rows=100, parameters=6_000_000)
    assert (supervised.learning_rate, supervised.epochs, supervised.batches()) == (1e-3, 4.0, (1, 1))
    counts = Counts(good=60, bad=20)
    kto, why = config.for_stage("kto").resolve(rows=80, parameters=6_000_000, stage="kto", counts=counts)
    assert (kto.learning_rate, kto.epochs, kto.batches(), kto.dropout) == (5e-5, 2.0, (2, 1), 0.0)
    assert (kto.desirable_weight, kto.undesirable_weight) == (1.0, 3.0)
    assert any("A bad row weighs 3" in sentence for sentence in why)
    even, _ = (
        FinetuneConfig(desirable_weight=2.0).for_stage("kto").resolve(rows=80, parameters=1, stage="kto", counts=counts)
    )
    assert (even.desirable_weight, even.undesirable_weight) == (2.0, 1.0)  # what a person sets stays

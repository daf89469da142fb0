from __future__ import annotations

import pytest

from training.finetune.config import ConfigError, FinetuneConfig


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

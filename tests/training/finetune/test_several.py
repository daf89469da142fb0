"""One training in two processes, on processors: the same rows, one set of weights, stopped and resumed."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.training.finetune.conftest import plain_row
from tests.training.finetune.test_recipe import of, run, weights
from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.order import batch_count, even_batches

TOGETHER = {"processes": 2, "dropout": 0.0, "batch": 4, "micro_batch": 2}


@given(rows=st.integers(1, 400), batch=st.integers(1, 16), processes=st.integers(1, 9))
def test_every_row_is_seen_once_and_every_process_has_as_many_batches(rows: int, batch: int, processes: int) -> None:
    if rows < processes:
        return
    order = random.Random(rows).sample(range(rows), rows)
    batches = even_batches(order, batch, processes)
    assert [row for members in batches for row in members] == order
    assert len(batches) == batch_count(rows, batch, processes) * processes
    assert all(1 <= len(members) <= batch + 1 for members in batches)


@given(batch=st.integers(1, 200), micro=st.integers(1, 32), processes=st.integers(1, 8))
def test_a_step_holds_exactly_the_rows_that_were_asked_for(batch: int, micro: int, processes: int) -> None:
    try:
        own, accumulate = FinetuneConfig(batch=batch, micro_batch=micro).batches(processes)
    except ConfigError:
        # Settings are refused when they do not even suit one process.
        assert any(batch % count or min(micro, batch // count) > 1 for count in (1, processes))
        return
    assert own * accumulate * processes == batch
    assert own <= micro
    assert own > 1 or min(micro, batch // processes) == 1


def test_a_batch_that_cannot_be_cut_is_refused_with_those_that_can() -> None:
    with pytest.raises(ConfigError, match=r"batch 17 cannot be cut .* Choose batch 16 or 24"):
        FinetuneConfig(batch=17)
    with pytest.raises(ConfigError, match=r"batch 16 cannot be shared out evenly among 3 processes. Choose 15 or 18"):
        FinetuneConfig(batch=16).batches(3)
    chosen, _ = FinetuneConfig().resolve(rows=6000, parameters=10, processes=3)
    assert chosen.batches(3) == (8, 2)


def test_kto_with_one_row_a_process_is_refused_before_it_starts() -> None:
    """There it would be compared with itself; the trainer says so too, where only the machine knows how many."""
    crowded = FinetuneConfig(batch=4, micro_batch=2, processes=4)
    assert crowded.alone("sft+kto") == (
        "KTO compares the rows of a batch, and batch 4 leaves each of 4 processes one row. Choose batch 8 or more, or "
        "fewer processes."
    )
    assert crowded.alone("sft") == crowded.alone("sft+dpo") == ""
    assert FinetuneConfig(batch=8, processes=4).alone("kto") == FinetuneConfig(batch=4).alone("kto") == ""


def test_two_processes_end_at_the_weights_of_one_also_when_stopped_in_between(write_job: Callable[..., Path]) -> None:
    rows = [plain_row(i, words=2 * i) for i in range(22)]  # 22: the last step of an epoch has fewer
    alone = write_job(rows, name="alone", learning_rate=1e-3, **{**TOGETHER, "processes": 1})
    both = write_job(rows, name="both", learning_rate=1e-3, **TOGETHER)
    cut = write_job(rows, name="cut", learning_rate=1e-3, **TOGETHER)
    (code, one), (same, two) = run(alone), run(both)
    assert code == same == 0, (one[-1], two[-1])

    (begin,), (begin_two,) = of("start", one), of("start", two)
    assert (begin["processes"], begin_two["processes"]) == (1, 2)
    assert begin["steps"] == begin_two["steps"] == 12
    assert len(of("step", two)) == 12, "the second process says nothing"
    for left, right in zip(of("step", one), of("step", two), strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-3), f"other rows at step {left['step']}"
    first, second = (load_file(config.parent / "adapter" / "adapter_model.safetensors") for config in (alone, both))
    moved = max(tensor.abs().max() for name, tensor in first.items() if "lora_B" in name)
    apart = max((first[name] - second[name]).abs().max() for name in first)
    assert moved > 1e-3
    assert apart < 0.02 * moved

    code, events = run(cut, send=signal.SIGTERM, when=lambda e: e["event"] == "step" and e["step"] == 7)
    assert code != 0
    assert of("checkpoint", events)
    assert not (cut.parent / "adapter").exists()
    code, events = run(cut)
    assert code == 0
    assert 6 < of("start", events)[0]["resumed_from"] < 12, "in the middle of the second epoch"
    assert weights(cut) == weights(both)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_are_learned_in_two_processes(write_job: Callable[..., Path], method: str) -> None:
    code, events = run(write_job(method=method, preference_epochs=1.0, **{**TOGETHER, "batch": 8}))
    assert code == 0
    (begin,) = of("start", events)
    assert (begin["processes"], begin["rows"], begin["steps"]) == (2, 12, 2)
    assert of("saved", events)[0]["manifest"]["processes"] == 2


def test_too_few_rows_for_two_processes_are_refused_in_one_sentence(write_job: Callable[..., Path]) -> None:
    code, events = run(write_job([plain_row(0)], **TOGETHER))
    assert code != 0
    assert "1 rows are too few for 2 processes" in of("error", events)[-1]["message"]

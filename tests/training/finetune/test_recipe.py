"""The recipe as a process, on a tiny random base: what it writes, what it refuses, how it goes on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from generation.adapters import base_digest, check_adapter
from tests.training.finetune.conftest import plain_row
from training.finetune.reporting import EXIT_ERROR, EXIT_STOPPED, LIFELINE

ROOT = Path(__file__).parents[3]
ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "OMP_NUM_THREADS": "1"}
Event = dict[str, Any]


def start(config: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "training.finetune.recipe", str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**ENV, **env},
    )


def run(
    config: Path,
    *,
    send: signal.Signals | None = None,
    after: str = "checkpoint",
    when: Callable[[Event], bool] | None = None,
) -> tuple[int, list[Event]]:
    """Exit code and events; ``send`` is sent once the event ``after`` has come (or one for which ``when`` holds)."""
    due = when or (lambda event: event["event"] == after)
    with start(config) as child:
        assert child.stdout is not None
        events = []
        for line in child.stdout:
            events.append(json.loads(line))
            if send and due(events[-1]):
                child.send_signal(send)
                send = None
        return child.wait(), events


def weights(config: Path) -> str:
    return hashlib.sha256((config.parent / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def of(kind: str, events: list[Event]) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def test_trains_and_writes_a_folder_that_can_be_checked(write_job: Callable[..., Path], base: Path) -> None:
    rows = [{**plain_row(i), "weight": 1 + (i == 0) * 2} for i in range(12)]
    config = write_job(rows, learning_rate=5e-3, epochs=3.0)
    code, events = run(config)
    assert code == 0

    (begin,) = of("start", events)
    assert (begin["rows"], begin["weighted_rows"], begin["steps"]) == (12, 14, 12)
    assert begin["startup_seconds"] < 60
    losses = [event["loss"] for event in of("step", events)]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    assert len(of("validation", events)) == len(of("samples", events)) == 3
    assert of("samples", events)[0]["samples"][0]["wanted"].startswith("[1] Plan 1")

    folder = config.parent / "adapter"
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json",
    ]  # fmt: skip
    checked = check_adapter(folder, base_digest=base_digest(base), prompt_digest="0123456789abcdef")
    manifest = checked.manifest
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert manifest["data"]["rows_sha256"] == hashlib.sha256((config.parent / "train.jsonl").read_bytes()).hexdigest()
    assert (manifest["seed"], manifest["steps"], manifest["kept_step"]) == (3, 12, 12)
    assert manifest["versions"]["peft"]
    assert checked.config["base_model_name_or_path"] == "models/tiny"
    assert str(config.parent) not in (folder / "adapter_config.json").read_text()
    assert "Whether it is better" in (folder / "README.md").read_text()

    tensors = load_file(folder / "adapter_model.safetensors")
    moved = {name for name, tensor in tensors.items() if ".lora_B." in name and tensor.abs().max() > 0}
    assert len(moved) == 3 * 7  # three layers, seven linear modules each; B begins at zero


def test_goes_on_after_a_kill_and_ends_at_the_same_weights(write_job: Callable[..., Path]) -> None:
    whole, killed = write_job(name="whole"), write_job(name="killed")
    assert run(whole)[0] == 0
    code, before = run(killed, send=signal.SIGKILL)
    assert code == -signal.SIGKILL
    half_written = killed.parent / "work" / "checkpoints" / "checkpoint-99"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text("{")
    code, after = run(killed)
    assert code == 0
    assert of("start", after)[0]["resumed_from"] >= of("checkpoint", before)[0]["step"]
    assert not half_written.exists()
    assert weights(whole) == weights(killed)


def test_sigterm_stops_at_the_next_step_with_a_checkpoint(write_job: Callable[..., Path]) -> None:
    config = write_job(epochs=50.0, checkpoint_steps=0)
    code, events = run(config, send=signal.SIGTERM, after="step")
    assert code == EXIT_STOPPED
    stopped = events[-1]
    assert stopped["event"] == "stopped"
    assert of("checkpoint", events)[-1]["step"] == stopped["step"] < 150
    assert not (config.parent / "adapter").exists()


def test_a_row_that_does_not_fit_stops_the_run_before_it_starts(write_job: Callable[..., Path]) -> None:
    config = write_job([plain_row(0), plain_row(1, words=1200)])
    code, events = run(config)
    assert code == EXIT_ERROR
    assert events[-1]["event"] == "error"
    assert "1 of 4 rows are longer than 1024 tokens" in events[-1]["message"]
    assert not of("start", events)


@pytest.mark.parametrize("change", [{"rank": 0}, {"unknown": 1}])
def test_a_bad_setting_is_one_sentence(write_job: Callable[..., Path], change: dict[str, Any]) -> None:
    code, events = run(write_job(**change))
    assert code == EXIT_ERROR
    assert next(iter(change)) in events[-1]["message"]


def test_dies_with_its_parent(write_job: Callable[..., Path]) -> None:
    config = write_job(epochs=100.0)
    with start(config, **{LIFELINE: "1"}) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        for line in child.stdout:
            if json.loads(line)["event"] == "step":
                break
        child.stdin.close()  # what the kernel does when the parent dies
        began = time.monotonic()
        child.stdout.read()
        assert child.wait() == EXIT_STOPPED
        assert time.monotonic() - began < 5

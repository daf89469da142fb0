"""Runs as rows: metrics, adapter, cancel, crashes of the child and of the performer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from assistants import background
from assistants.background import launch, sweep
from generation.adapters import base_digest
from tests.assistants.test_background import ROOT, database_url, until
from tests.factories import make_assistant
from tests.tiny_model import make_tiny_adapter
from tests.training.finetune.conftest import make_dataset, make_run
from training.finetune import runs
from training.finetune.bases import from_state
from training.finetune.process import RecipeProcess
from training.models import Adapter, DatasetVersion, Example, Run, RunMetric

pytestmark = pytest.mark.usefixtures("run_settings")


def test_a_run_becomes_an_adapter(dataset: DatasetVersion, base: Path) -> None:
    Adapter.objects.create(assistant=dataset.assistant, number=6, folder="x", base_digest="b", prompt_digest="p")
    run = make_run(dataset, base)
    launch(run, foreground=True)
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")

    metrics = list(run.metrics.all())
    assert [m.step for m in metrics] == list(range(1, 9))
    assert all(m.loss is not None and m.learning_rate is not None for m in metrics)
    assert [m.step for m in metrics if m.validation_loss is not None] == [4, 8]
    assert run.progress["done"] == run.progress["total"] == 8
    assert len(run.progress["samples"]) == 2

    adapter = run.adapter
    assert (adapter.number, adapter.assistant) == (7, dataset.assistant)  # numbers go on
    assert adapter.manifest["data"]["dataset"] == dataset.number
    assert adapter.prompt_digest == dataset.assistant.prompt_digest
    assert adapter.size_bytes > 1000
    assert sorted(p.name for p in from_state(adapter.folder).iterdir())[-1] == "manifest.json"
    assert not (from_state(run.folder) / "work").exists()


def test_a_run_of_preferences_goes_on_from_an_adapter(dataset: DatasetVersion, base: Path, tmp_path: Path) -> None:
    assistant = dataset.assistant
    folder = make_tiny_adapter(base, tmp_path / "parent", prompt_digest=assistant.prompt_digest)
    parent = Adapter.objects.create(
        assistant=assistant, number=4, folder=str(folder), base_digest=base_digest(base),
        prompt_digest=assistant.prompt_digest,
    )  # fmt: skip
    Example.objects.filter(dataset=dataset, position__in=[1, 2, 5]).update(rejected="[1] Plan 0 costs £99.")
    run = make_run(dataset, base, preference_epochs=2.0, preference_learning_rate=1e-3)
    Run.objects.filter(pk=run.pk).update(method="kto", parent=parent)
    run.refresh_from_db()
    launch(run, foreground=True)
    run.refresh_from_db()
    assert (run.state, run.error) == (Run.State.SUCCEEDED, "")
    assert (run.progress["start"]["good_rows"], run.progress["start"]["bad_rows"]) == (13, 3)
    assert any("margin" in metric.measures for metric in run.metrics.all())
    adapter = run.adapter
    assert (adapter.number, adapter.parent) == (5, parent)
    assert adapter.manifest["parent"]["adapter"] == 4
    assert adapter.manifest["data"]["preferences_sha256"]
    assert not (from_state(run.folder) / "train.jsonl").exists()  # only what the method needs was written


def test_refusals_are_sentences(base: Path, db: None) -> None:
    assistant = make_assistant()
    cases = [
        (make_run(make_dataset(assistant, prompt_digest="0" * 16), base), "prompt format"),
        (make_run(make_dataset(assistant, rows=0), base), "no training rows"),
        (make_run(make_dataset(assistant), base, max_length=16), "would be cut"),
    ]
    cases.append((make_run(make_dataset(assistant), base), "no longer the one"))
    Run.objects.filter(pk=cases[-1][0].pk).update(base_digest="f" * 64)
    for run, word in cases:
        run.refresh_from_db()
        launch(run, foreground=True)
        assert run.state == Run.State.FAILED
        assert word in run.error
    assert not Adapter.objects.exists()


def test_a_cancel_stops_the_child(dataset: DatasetVersion, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(dataset, base, epochs=100.0)
    children = []
    enter = RecipeProcess.__enter__

    def remember(self: RecipeProcess) -> RecipeProcess:
        children.append(enter(self).process)
        return self

    monkeypatch.setattr(RecipeProcess, "__enter__", remember)
    step = runs.Watcher._step

    def cancel_at_first_step(self: runs.Watcher, event: dict[str, Any]) -> None:
        Run.objects.get(pk=run.pk).request_cancel()
        step(self, event)

    monkeypatch.setattr(runs.Watcher, "_step", cancel_at_first_step)
    launch(run, foreground=True)
    assert run.state == Run.State.CANCELLED
    assert children[0].poll() is not None
    assert not Adapter.objects.exists()


def test_a_killed_child_is_started_again_and_no_step_is_doubled(
    dataset: DatasetVersion, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(dataset, base)
    take = runs.Watcher.take
    kills = []

    def kill_after_checkpoint(self: runs.Watcher, event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and not kills:
            child = next(p for p in psutil.Process().children() if "training.finetune.recipe" in p.cmdline())
            child.send_signal(signal.SIGKILL)
            kills.append(event["step"])
        take(self, event)

    monkeypatch.setattr(runs.Watcher, "take", kill_after_checkpoint)
    launch(run, foreground=True)
    assert run.state == Run.State.SUCCEEDED
    assert run.attempt == 1
    assert run.progress["start"]["resumed_from"] >= kills[0] > 0
    assert [m.step for m in run.metrics.all()] == list(range(1, 9))


def test_a_child_that_dies_at_once_is_given_up(
    dataset: DatasetVersion, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    enter = RecipeProcess.__enter__

    def kill(self: RecipeProcess) -> RecipeProcess:
        enter(self).process.kill()
        starts.append(1)
        return self

    monkeypatch.setattr(RecipeProcess, "__enter__", kill)
    run = make_run(dataset, base)
    launch(run, foreground=True)
    assert run.state == Run.State.FAILED
    assert "killed 3 times" in run.error
    assert len(starts) == 3


@pytest.mark.django_db(transaction=True)
def test_a_killed_performer_is_resumed_by_another(
    base: Path, run_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[Any] = []
    monkeypatch.setattr(background, "launch", launched.append)
    run = make_run(make_dataset(make_assistant()), base, epochs=60.0)
    env = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "RATCHET_PROCESS": "worker",
        "RATCHET_RUNS": str(run_settings.RATCHET_RUNS_DIR),
        "RATCHET_ADAPTERS": str(run_settings.RATCHET_ADAPTERS_DIR),
    }
    command = [sys.executable, str(ROOT / "manage.py"), "perform", "training.Run", str(run.pk)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=env, start_new_session=True, stderr=subprocess.DEVNULL)

    first = start()
    until(lambda: RunMetric.objects.filter(run=run, step__gte=6).exists(), 60)
    children = psutil.Process(first.pid).children()
    first.kill()
    first.wait()
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() for child in children)  # the recipe died with it
    sweep()
    assert launched == [run]

    second, third = start(), start()  # one of them gets the device
    assert {second.wait(120), third.wait(120)} == {0}
    run.refresh_from_db()
    assert (run.state, run.attempt) == (Run.State.SUCCEEDED, 2)
    assert run.progress["start"]["resumed_from"] > 0
    steps = list(run.metrics.values_list("step", flat=True))
    assert steps == sorted(set(steps))
    assert steps[-1] == 240
    assert Adapter.objects.filter(run=run).count() == 1

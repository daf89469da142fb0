"""Performs a run: rows to files, the recipe as a child process, its progress to the database, its adapter to the list.

The child may die (out of memory, a kill): it is started again and goes on from its checkpoint. This process may die:
the child dies with it, the sweep queues the run again, and the next attempt goes on from the same checkpoint. Whoever
comes too late changes nothing: the adapter is registered in the transaction that ends the run, which checks the token.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from assistants.background import WorkLost
from assistants.models import Assistant
from assistants.performing import log_path
from generation.adapters import WEIGHTS, base_digest, check_adapter
from training.data.render import dpo_rows, kto_rows, sft_rows
from training.finetune.bases import base_folder, from_state, relative_to_state
from training.finetune.methods import stages
from training.finetune.process import RecipeProcess
from training.finetune.reporting import EXIT_ERROR
from training.finetune.rows import write_rows
from training.models import Adapter, Example, Run, RunMetric, TrainingProvider

MAX_CRASHES = 3
"""Of the child without any progress in between."""
STORE_SECONDS = 1.0
KEPT_SAMPLES = 12


class RunRefused(ValueError):
    """The run cannot start or go on as it is; the message says why and what to do."""


def perform(run: Run) -> None:
    """Trains the adapter of ``run`` and registers it.

    Raises:
        RunRefused: rows that do not fit, another prompt format or base than promised, a child that keeps dying.
        training.providers.client.ProviderError: a provider refuses, or fails.
    """
    if run.provider is not None:
        from training.providers import ray_jobs, running

        there = ray_jobs if run.provider.kind == TrainingProvider.Kind.RAY else running
        there.perform(run)
        return
    folder = run_folder(run)
    refuse_mismatch(run)
    config = prepare(run, folder)
    _train(run, config)
    register(run, folder)
    shutil.rmtree(folder / "work", ignore_errors=True)


def run_folder(run: Run) -> Path:
    folder = Path(settings.RATCHET_RUNS_DIR) / f"{run.assistant.slug}-{run.pk}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stored = relative_to_state(folder)
    if run.folder != stored:
        run.folder = stored
        run.save(update_fields=["folder"])  # the same for every attempt
    return folder


def refuse_mismatch(run: Run) -> None:
    """A dataset rendered with another prompt format than the assistant serves would train for nothing; one that has
    lost rows to an erasure, or leaks, must not be trained on, also by a run that was queued before."""
    if why := run.dataset.why_unusable:
        raise RunRefused(why)
    if run.parent is not None and run.parent.erased_rows:
        raise RunRefused(f"{run.parent} holds erased data, and what continues it would, too. Begin with the base.")
    now = run.assistant.prompt_digest
    for thing, digest in (("run", run.prompt_digest), ("dataset", run.dataset.prompt_digest)):
        if digest != now:
            raise RunRefused(
                f"The {thing} was made for prompt format {digest}; the assistant now uses {now}. Build the dataset "
                "again, or set style, decline sentence and instructions back."
            )


def prepare(run: Run, folder: Path) -> Path:
    """Writes the rows and the recipe's configuration; returns the path of the latter. The same for every attempt."""
    run.beat(stage="writing rows")
    base = base_folder(run.base_model)
    digest = base_digest(base)
    if run.base_digest and run.base_digest != digest:
        raise RunRefused(
            f"The base model {run.base_model} is no longer the one that the run was started for "
            f"({digest[:12]}, not {run.base_digest[:12]}). Start a new run."
        )
    files, data = _write_files(run, folder)
    parent = run.parent
    config = folder / "config.json"
    record = {
        "method": run.method,
        **files,
        "parent": str(from_state(parent.folder)) if parent is not None else None,
        "base": str(base),
        "base_name": run.base_model,
        "work": str(folder / "work"),
        "output": str(folder / "adapter"),
        "seed": run.seed,
        "settings": run.settings,
        "base_digest": digest,
        "prompt_digest": run.prompt_digest,
        "facts": {
            "run": run.pk,
            "assistant": run.assistant.slug,
            "data": {
                "dataset": run.dataset.number,
                "content_hash": run.dataset.content_hash,
                **data,
            },
        },
    }
    if parent is not None:
        record["facts"]["parent"] = {"adapter": parent.number}
    config.write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
    return config


def _write_files(run: Run, folder: Path) -> tuple[dict[str, str | None], dict[str, str]]:
    """The rows that the run's method needs; returns the paths for the recipe and what the manifest says of them."""
    kinds = stages(run.method)
    rows: Any = {"sft": sft_rows, "dpo": dpo_rows, "kto": kto_rows}
    files: dict[str, str | None] = {}
    data: dict[str, str] = {}
    for kind in kinds:
        own = kind == "sft"
        names = ("train", "validation") if own else ("preferences", "held_preferences")
        for name, split in zip(names, (Example.Split.TRAIN, Example.Split.VALIDATION), strict=True):
            path = folder / f"{name}.jsonl"
            count, digest = write_rows(path, rows[kind](run.dataset, split))
            if not count and split == Example.Split.TRAIN:
                what = "training rows" if own else "preferences (its pairs turned out to be alike)"
                raise RunRefused(f"The dataset has no {what}. Build one with more labelled or synthetic turns.")
            files[name] = str(path) if count else None
            data["rows_sha256" if name == "train" else f"{name}_sha256"] = digest
    return files, data


def register(run: Run, folder: Path) -> Adapter:
    """Checks the folder, moves it to its place, makes the row and ends the run: all of it, or nothing."""
    made = folder / "adapter"
    checked = check_adapter(made, base_digest=run.base_digest or None, prompt_digest=run.prompt_digest)
    with transaction.atomic():
        Assistant.objects.select_for_update().get(pk=run.assistant_id)  # numbers are given one by one
        last = Adapter.objects.filter(assistant=run.assistant_id).aggregate(last=Max("number"))["last"] or 0
        place = Path(settings.RATCHET_ADAPTERS_DIR) / run.assistant.slug / str(last + 1)
        adapter = Adapter.objects.create(
            assistant=run.assistant,
            number=last + 1,
            run=run,
            parent=run.parent,
            folder=relative_to_state(place),
            manifest=checked.manifest,
            base_digest=checked.manifest["base_digest"],
            prompt_digest=checked.manifest["prompt_digest"],
            size_bytes=(made / WEIGHTS).stat().st_size,
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # left by an attempt that died before its commit: no row names it
        shutil.move(made, place)
        if not run.finish(Run.State.SUCCEEDED):
            raise WorkLost
    return adapter


def _train(run: Run, config: Path) -> None:
    """Runs the recipe to its end, again after each crash, as long as it gets further in between."""
    crashes, reached = 0, -1
    while True:
        watcher = Watcher(run)
        with RecipeProcess(config, log=log_path(run._meta.label, run.pk)) as child:
            for event in child.events():
                if event is not None:
                    watcher.take(event)
                watcher.store()
            code = child.wait()
        watcher.store(now=True)
        if code == 0:
            return
        if watcher.error:
            raise RunRefused(watcher.error)
        # Killed, or told to stop by somebody else; a launcher says 1 of whatever has happened to its processes.
        if code > EXIT_ERROR or code < 0 or watcher.processes > 1:
            crashes = crashes + 1 if watcher.step <= reached else 1
            reached = max(reached, watcher.step)
            if crashes < MAX_CRASHES:
                continue
            how = f" (signal {-code})" if code < 0 else ""
            raise RunRefused(
                f"The training process was killed {crashes} times at the same place{how}. The machine may be short of "
                "memory: set a smaller micro_batch."
            )
        raise RunRefused(f"The training process failed: {child.last_line()}")


@dataclass
class Watcher:
    """Takes the recipe's events, and writes them to the database about once a second."""

    run: Run
    step: int = 0
    error: str = ""
    processes: int = 1
    _progress: dict[str, Any] = field(default_factory=dict)
    _metrics: dict[int, RunMetric] = field(default_factory=dict)
    _validation: dict[int, float] = field(default_factory=dict)
    _stored: float = 0.0

    def take(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == "stage":
            self._progress |= {"stage": event["stage"]}
        elif kind == "start":
            self.processes = event.get("processes", 1)
            self._progress |= {
                "stage": "training",
                "done": event.get("done", event["resumed_from"]),
                "total": event["steps"],
                "start": event,
            }
            if event.get("method", "sft") != "sft":
                self._progress |= {"loss": None}  # another loss: nothing to compare with the stage before
        elif kind == "step":
            self._step(event)
        elif kind == "validation":
            self._validation[event["step"]] = event["loss"]
            self._progress["validation_loss"] = event["loss"]
        elif kind == "samples":
            earlier = self._progress.get("samples", self.run.progress.get("samples", []))
            kept = [s for s in earlier if s["step"] < event["step"]]
            self._progress["samples"] = [*kept, event][-KEPT_SAMPLES:]
        elif kind == "error":
            self.error = event["message"]

    def _step(self, event: dict[str, Any]) -> None:
        self.step = event["step"]
        self._metrics[self.step] = RunMetric(
            run=self.run,
            step=self.step,
            loss=event["loss"],
            learning_rate=event["learning_rate"],
            tokens_per_second=event["tokens_per_second"],
            measures=event.get("measures", {}),
        )
        self._progress |= {
            "stage": "training",
            "done": self.step,
            "total": event["steps"],
            "epoch": event["epoch"],
            "loss": event["loss"],
            "tokens_per_second": event["tokens_per_second"],
            "eta_seconds": event["eta_seconds"],
            "measures": event.get("measures", {}),
        }

    def store(self, *, now: bool = False) -> None:
        """Raises WorkCancelled and WorkLost, as `BackgroundWork.beat`."""
        if not now and time.monotonic() - self._stored < STORE_SECONDS:
            return
        self._stored = time.monotonic()
        self.run.beat(**self._progress)  # first: a run that is no longer ours must not write metrics either
        self._progress = {}
        # A resumed run repeats the steps since its checkpoint: they replace what was there.
        RunMetric.objects.bulk_create(
            self._metrics.values(),
            update_conflicts=True,
            unique_fields=["run", "step"],
            update_fields=["loss", "learning_rate", "tokens_per_second", "measures"],
        )
        RunMetric.objects.bulk_create(
            [RunMetric(run=self.run, step=step, validation_loss=loss) for step, loss in self._validation.items()],
            update_conflicts=True,
            unique_fields=["run", "step"],
            update_fields=["validation_loss"],
        )
        self._metrics, self._validation = {}, {}

"""A run at a provider: files there, one job, its events as our metrics, its model as an adapter of our list.

What the provider calls things is stored as soon as it is known, so that a performer which takes over goes on with the
same job. Making a job is marked before it is asked for: a performer that died in between finds the job by the mark, and
does not make a second one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from assistants.background import WorkCancelled, WorkLost
from assistants.models import Assistant
from assistants.vault import PayloadUnreadable
from training.data.render import dpo_rows, sft_rows
from training.finetune.rows import write_rows
from training.finetune.runs import refuse_mismatch, run_folder
from training.models import Adapter, Example, Run, RunMetric
from training.providers.client import ENDED, FineTuningClient, ProviderAway, ProviderError
from training.providers.erasing import kept_there

POLL_SECONDS = 10.0
BEAT_SECONDS = 2.0
PATIENCE_SECONDS = 1800.0
MAX_SEEN = 2_000
"""Ids of events that are remembered; more than any job has pages of."""


def perform(run: Run) -> None:
    """Trains at the run's provider and registers what came of it.

    Raises:
        ProviderError: it refuses, fails, or stays away; what was made there is named in the run.
        training.finetune.runs.RunRefused: another prompt format than promised, or rows that must not be used.
    """
    refuse_mismatch(run)
    assert run.provider is not None
    try:
        key = run.provider.api_key
    except PayloadUnreadable as error:
        raise ProviderError(f"The key of {run.provider} cannot be opened any more. Enter it again.") from error
    with FineTuningClient(run.provider.base_url, key) as client:
        try:
            job = _begin(run, client)
            job = _follow(run, client, job)
        except WorkCancelled:
            _cancel_there(run, client)
            _tidy(run, client)
            raise
        except ProviderAway:
            raise  # the job there may go on, and so may the run: it needs its files
        except ProviderError:
            _tidy(run, client)
            raise
        _tidy(run, client)
    if job["status"] != "succeeded":
        why = job.get("error") or {}
        said = str(why.get("message", ""))[:300] if isinstance(why, dict) else ""
        raise ProviderError(f"The provider's job {job['status']}: {said or 'it does not say why.'}")
    model = job.get("fine_tuned_model")
    if not isinstance(model, str) or not 1 <= len(model) <= 300:
        raise ProviderError("The job succeeded, and the provider does not name the model. Ask there for the job.")
    register(run, model, job)


def _cancel_there(run: Run, client: FineTuningClient) -> None:
    """Asks; a provider that refuses (the job has ended just now) or is away keeps nobody from cancelling here."""
    if not run.remote.get("job"):
        return
    try:
        client.cancel(run.remote["job"])
    except ProviderError as error:
        print(f"The job {run.remote['job']} was not cancelled at the provider: {error}", flush=True)


def _begin(run: Run, client: FineTuningClient) -> dict[str, Any]:
    """The provider's job of this run: the one that is there already, or a new one."""
    if run.remote.get("job"):
        return client.job(run.remote["job"])
    mark = f"{run.assistant.slug}-{run.pk}-{run.created_at:%Y%m%d%H%M%S}"
    found = client.find_job(mark) if run.remote.get("creating") else None
    if found is not None:
        if not isinstance(found.get("id"), str):
            raise ProviderError("The provider lists our job without an id. Does it speak OpenAI's fine-tuning API?")
        _remember(run, job=found["id"], creating=False)
        return found
    run.beat(stage="writing rows")
    folder = run_folder(run)
    for name, split in (("training_file", Example.Split.TRAIN), ("validation_file", Example.Split.VALIDATION)):
        if name in kept_there(run):
            continue
        path = folder / f"{'train' if split == Example.Split.TRAIN else 'validation'}.jsonl"
        count, digest = write_rows(path, wire_rows(run, split))
        if not count:
            if split == Example.Split.TRAIN:
                raise ProviderError("The dataset has no rows for this method. Build one with more labels.")
            continue
        run.beat(stage="uploading rows")
        there = client.upload(path)
        _remember(run, **{name: there, f"{name}_rows": count, f"{name}_sha256": digest, f"{name}_deleted": False})
        path.unlink()
    _remember(run, creating=True)
    job = client.create_job(_body(run, mark))
    if not isinstance(job.get("id"), str):
        raise ProviderError("The provider made a job without an id. Does it speak OpenAI's fine-tuning API?")
    _remember(run, job=job["id"], creating=False)
    return job


def wire_rows(run: Run, split: str) -> Iterator[dict[str, Any]]:
    """Rows in the provider's formats; a row that weighs 2 stands there twice."""
    if run.method == "dpo":
        for pair in dpo_rows(run.dataset, split):
            for _ in range(pair["weight"]):
                yield {
                    "input": {"messages": pair["prompt"]},
                    "preferred_output": pair["chosen"],
                    "non_preferred_output": pair["rejected"],
                }
        return
    for row in sft_rows(run.dataset, split):
        for _ in range(row["weight"]):
            yield {"messages": [*row["prompt"], *row["completion"]]}


def _body(run: Run, mark: str) -> dict[str, Any]:
    settings = run.settings
    own = {"epochs": "n_epochs", "batch": "batch_size"} if run.method == "sft" else {"preference_epochs": "n_epochs"}
    hyper = {theirs: settings[ours] for ours, theirs in own.items() if settings.get(ours) is not None}
    if "n_epochs" in hyper:
        hyper["n_epochs"] = max(1, round(hyper["n_epochs"]))
    if run.method == "dpo":
        hyper["beta"] = settings.get("beta", 0.1)
    kind = {"sft": "supervised", "dpo": "dpo"}[run.method]
    body = {
        "model": run.base_model,
        "training_file": run.remote["training_file"],
        "seed": run.seed,
        "suffix": f"{run.assistant.slug}-{run.pk}"[:60],
        "metadata": {"ratchet": mark},
        "method": {"type": kind, kind: {"hyperparameters": hyper}},
    }
    if "validation_file" in kept_there(run):
        body["validation_file"] = run.remote["validation_file"]
    return body


def _follow(run: Run, client: FineTuningClient, job: dict[str, Any]) -> dict[str, Any]:
    """Until the job has ended; its events become metrics and progress."""
    seen: list[str] = list(run.remote.get("seen", []))
    while True:
        try:
            fresh = client.events(run.remote["job"], seen=frozenset(seen))
        except ProviderAway:
            fresh = []  # they are still there at the next look
        for event in fresh:
            seen = [*seen, str(event.get("id"))][-MAX_SEEN:]
            _take(run, event)
        _remember(run, seen=seen)
        status = str(job.get("status", ""))
        run.beat(stage=f"at {run.provider}: {status.replace('_', ' ')}", eta_seconds=_left(job))
        if status in ENDED:
            return job
        until = time.monotonic() + POLL_SECONDS
        while time.monotonic() < until:
            time.sleep(min(BEAT_SECONDS, POLL_SECONDS))
            run.beat()  # notices a cancel long before the next look
        job = _look(run, client)


def _look(run: Run, client: FineTuningClient) -> dict[str, Any]:
    """The job as it stands; waits while the provider is away, for a job there goes on without us."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.job(run.remote["job"])
        except ProviderAway:
            if time.monotonic() > until:
                raise
            run.beat(stage=f"{run.provider} does not answer; the job there may go on")
            time.sleep(min(BEAT_SECONDS, POLL_SECONDS))


def _take(run: Run, event: Mapping[str, Any]) -> None:
    data = event.get("data")
    if event.get("type") != "metrics" or not isinstance(data, Mapping):
        print(f"{event.get('level', 'info')}: {str(event.get('message', ''))[:500]}", flush=True)  # the log of the run
        return
    step = data.get("step")
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 2**31:
        return
    loss, held = _number(data.get("train_loss")), _number(data.get("valid_loss", data.get("full_valid_loss")))
    RunMetric.objects.update_or_create(run=run, step=step, defaults={"loss": loss, "validation_loss": held})
    total = data.get("total_steps")
    progress: dict[str, Any] = {"done": step, "loss": loss}
    if isinstance(total, int) and 0 <= total < 2**31:
        progress["total"] = total
    if held is not None:
        progress["validation_loss"] = held
    run.beat(**progress)


def _left(job: Mapping[str, Any]) -> float | None:
    finish = _number(job.get("estimated_finish"))
    return max(0.0, finish - timezone.now().timestamp()) if finish is not None else None


def _number(value: Any) -> float | None:
    # A loss that is no number any more comes as NaN, which progress (JSON of the database) cannot hold.
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
    return round(float(value), 5) if known else None


def _remember(run: Run, **what: Any) -> None:
    """Raises WorkLost: another process has the run now."""
    run.remote = {**run.remote, **what}
    run.keep("remote")


def _tidy(run: Run, client: FineTuningClient) -> None:
    """Deletes our files there. That one stays is no reason to lose a model: it is named in the run."""
    for name in kept_there(run):
        try:
            client.delete_file(run.remote[name])
        except ProviderError as error:
            print(f"The file {run.remote[name]} stays at the provider: {error}", flush=True)
            continue
        _remember(run, **{f"{name}_deleted": True})


def register(run: Run, model: str, job: Mapping[str, Any]) -> Adapter:
    """Makes the row and ends the run: both, or nothing."""
    assert run.provider is not None
    losses = [m.loss for m in run.metrics.exclude(loss=None).order_by("step")]
    held = run.metrics.exclude(validation_loss=None).order_by("step")
    manifest = {
        "run": run.pk,
        "assistant": run.assistant.slug,
        "method": run.method,
        "seed": run.seed,
        "settings": run.settings,
        "base_model": run.base_model,
        "prompt_digest": run.prompt_digest,
        "provider": {
            "name": run.provider.name,
            "base_url": run.provider.base_url,
            "job": run.remote["job"],
            "model": model,
            "trained_tokens": job.get("trained_tokens") if isinstance(job.get("trained_tokens"), int) else None,
        },
        "data": {
            "dataset": run.dataset.number,
            "content_hash": run.dataset.content_hash,
            "rows": run.remote.get("training_file_rows"),
            "validation_rows": run.remote.get("validation_file_rows", 0),
            "rows_sha256": run.remote.get("training_file_sha256"),
        },
        "losses": {
            "first": losses[0] if losses else None,
            "last": losses[-1] if losses else None,
            "validation": [{"step": m.step, "loss": m.validation_loss} for m in held],
        },
        "files": {},
    }
    with transaction.atomic():
        Assistant.objects.select_for_update().get(pk=run.assistant_id)  # numbers are given one by one
        last = Adapter.objects.filter(assistant=run.assistant_id).aggregate(last=Max("number"))["last"] or 0
        adapter = Adapter.objects.create(
            assistant=run.assistant,
            number=last + 1,
            run=run,
            source=Adapter.Source.REMOTE,
            remote_model=model,
            manifest=manifest,
            base_digest="",
            prompt_digest=run.prompt_digest,
        )
        if not run.finish(Run.State.SUCCEEDED):
            raise WorkLost
    return adapter

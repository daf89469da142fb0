"""A run as a job on a Ray cluster: its files go there with the job, its adapter comes back in the job's log.

The job is named before it is submitted, so that a performer which takes over goes on with the same one and makes no
second. A job goes on without us; one that crashes is submitted again and finds its checkpoints where the cluster kept
them. What the job runs: `training.finetune.elsewhere`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings

from assistants.background import WorkCancelled, WorkLost
from assistants.vault import PayloadUnreadable
from training.finetune.runs import MAX_CRASHES, RunRefused, Watcher, refuse_mismatch, register, run_folder
from training.models import Run
from training.providers.client import ProviderAway, ProviderError
from training.providers.ray_package import pack
from training.providers.returning import Returning

POLL_SECONDS = 3.0
READ_RATE = 200_000.0
"""Characters of a log a second, on average."""
MOST_PAUSE = 60.0
LOG_ROOM = 64 * 1024**2
BEAT_SECONDS = 1.0
PATIENCE_SECONDS = 1800.0
ENTRYPOINT = "PYTHONPATH=platform:. python -W ignore -m training.finetune.elsewhere"
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})

T = TypeVar("T")


def perform(run: Run) -> None:
    """Trains on the cluster and registers the adapter.

    Raises:
        ProviderError: the cluster is not there, refuses, or keeps losing the job.
        RunRefused: rows that do not fit, another prompt format or base than promised.
    """
    refuse_mismatch(run)
    folder = run_folder(run)
    client = connect(run)
    try:
        _train(run, client, folder)
    except WorkCancelled:
        _stop_there(run, client)
        raise
    register(run, folder)
    shutil.rmtree(folder / "work", ignore_errors=True)


def connect(run: Run) -> Any:
    """Raises ProviderError: Ray's client is not installed, or the cluster does not answer."""
    assert run.provider is not None
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ProviderError(
            "Ray's client is not installed on this machine. Install the extra “ray”: pip install -c constraints.txt "
            "-e '.[ray]'."
        ) from error
    try:
        token = run.provider.api_key
    except PayloadUnreadable as error:
        raise ProviderError(f"The key of {run.provider} cannot be opened any more. Enter it again.") from error
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray would send rows and key there instead of where they were entered for
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        return JobSubmissionClient(run.provider.base_url, headers=headers)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ProviderError(
            f"The Ray cluster at {run.provider.base_url} does not answer. Enter the address of its dashboard (port "
            "8265), and see that it runs."
        ) from error


def _train(run: Run, client: Any, folder: Path) -> None:
    """Until a job has ended well and its adapter is here; submitted again after a crash as long as it gets further."""
    crashes, reached = 0, -1
    while True:
        watcher = Watcher(run)
        job = run.remote.get("job")
        # A cluster that was started anew knows nothing of its jobs.
        if not job or run.remote.get("ended") or not _knows(run, client, job):
            job = _submit(run, client, folder)
        status, message = _follow(run, client, watcher, job, folder)
        if status == "SUCCEEDED":
            return  # its log stays what it was: who takes over before the adapter is registered reads it again
        _remember(run, ended=True)
        if watcher.error:
            raise RunRefused(watcher.error)
        if status == "STOPPED":
            raise ProviderError(f"The job {job} was stopped on the cluster. Let the run go on, or start a new one.")
        crashes = crashes + 1 if watcher.step <= reached else 1
        reached = max(reached, watcher.step)
        if crashes >= MAX_CRASHES:
            raise ProviderError(f"The job crashed {crashes} times at the same place on the cluster: {message[:300]}")


def _submit(run: Run, client: Any, folder: Path) -> str:
    """Sends the files and starts a job under a name that is stored before it is asked for."""
    assert run.provider is not None
    number = run.remote.get("jobs", 0) + 1
    mark = f"ratchet-{run.assistant.slug}-{run.pk}-{run.created_at:%Y%m%d%H%M%S}"
    job = f"{mark}-{number}"
    package = pack(run, folder, mark)
    run.beat(stage="sending files to the cluster")
    _remember(run, job=job, jobs=number, ended=False)
    gpus = run.provider.gpus
    _patiently(
        run,
        lambda: client.submit_job(
            entrypoint=ENTRYPOINT,
            submission_id=job,
            runtime_env={"working_dir": str(package)},
            metadata={"ratchet": mark},
            entrypoint_num_gpus=gpus or None,
            entrypoint_num_cpus=None if gpus else 1,
        ),
        known=lambda: _is_there(run, client, job),
    )
    shutil.rmtree(package, ignore_errors=True)
    return job


def _follow(run: Run, client: Any, watcher: Watcher, job: str, folder: Path) -> tuple[str, str]:
    """The job's status when it has ended, and what the cluster says of it. Its log is read from the start: what was
    stored before is stored again, the same."""
    most = settings.RATCHET_MAX_ADAPTER_BYTES
    returning = Returning(folder / "adapter", most=most)
    read = 0
    while True:
        info: Any = _patiently(run, lambda: client.get_job_info(job))
        # Status first: what a job has said before it ended is in the log that is read after.
        text: Any = _patiently(run, lambda: client.get_job_logs(job))
        status = str(getattr(info.status, "value", info.status))
        # Base64 makes four of three, and a training says a few megabytes besides.
        if len(text) > most * 4 // 3 + LOG_ROOM:
            _stop_there(run, client)
            raise ProviderError(
                f"The job's log on the cluster has {len(text):,} characters, more than any adapter that is taken "
                "(RATCHET_MAX_ADAPTER_BYTES). The job was stopped; look at its log there."
            )
        whole = len(text) if status in ENDED else text.rfind("\n") + 1
        for line in text[read:whole].splitlines():
            _take(line, watcher, returning)
        read = max(read, whole)
        if status not in ENDED:
            _wait(run, watcher, status, pause_after(len(text)))
            continue
        watcher.store(now=True)
        if status == "SUCCEEDED" and (why := returning.finish()):
            _remember(run, ended=True)  # the same log would say the same for ever
            raise ProviderError(f"The adapter did not come back whole from the cluster: {why} Let the run go on.")
        return status, str(info.message or "it does not say why.")


def _take(line: str, watcher: Watcher, returning: Returning) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        if line.strip():
            print(line[:2000], flush=True)  # the log of the run
        return
    if not returning.take(event):
        watcher.take(event)


def pause_after(characters: int) -> float:
    """Seconds until the log is fetched again. Ray's API knows no offset, so it comes whole each time: the longer it is,
    the rarer, so that following a job costs at most `READ_RATE` however long it says things."""
    return min(max(POLL_SECONDS, characters / READ_RATE), MOST_PAUSE)


def _wait(run: Run, watcher: Watcher, status: str, seconds: float) -> None:
    if watcher.step == 0 and status == "PENDING":
        run.beat(stage=f"waiting at {run.provider}")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        watcher.store()
        run.beat()  # notices a cancel long before the next look
        time.sleep(BEAT_SECONDS)


def _patiently(run: Run, ask: Callable[[], T], known: Callable[[], bool] | None = None) -> T | None:
    """What the cluster answers; waits while it is away. ``known``: whether what was asked for is there already.

    Raises:
        ProviderAway: it stays away.
        ProviderError: it refuses.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if known is not None and known():
                return None
            return ask()
        except (ConnectionError, TimeoutError) as error:
            if time.monotonic() > until:
                raise ProviderAway(f"{run.provider} has not answered for half an hour.") from error
            run.beat(stage=f"{run.provider} does not answer; the job there may go on")
            time.sleep(BEAT_SECONDS)
        except RuntimeError as error:
            if _is_work(error):
                raise
            raise ProviderError(
                f"The cluster refuses: {str(error)[:300]} If it was started anew, let the run go on."
            ) from error


def _is_work(error: Exception) -> bool:
    return isinstance(error, WorkCancelled | WorkLost | ProviderError)


def _knows(run: Run, client: Any, job: str) -> bool:
    return bool(_patiently(run, lambda: _is_there(run, client, job)))


def _is_there(run: Run, client: Any, job: str) -> bool:
    """Raises ProviderError: the cluster refuses to say."""
    try:
        client.get_job_info(job)
    except ConnectionError:
        raise
    except RuntimeError as error:
        if "404" in str(error):
            return False
        raise ProviderError(f"{run.provider} refuses: {str(error)[:300]}") from error
    return True


def _stop_there(run: Run, client: Any) -> None:
    """Asks; a cluster that is away keeps nobody from cancelling here."""
    if not run.remote.get("job") or run.remote.get("ended"):
        return
    try:
        client.stop_job(run.remote["job"])
    except (RuntimeError, OSError) as error:
        print(f"The job {run.remote['job']} was not stopped on the cluster: {error}", flush=True)
    else:
        Run.objects.filter(pk=run.pk, token=run.token).update(remote={**run.remote, "ended": True})


def _remember(run: Run, **what: Any) -> None:
    """Raises WorkLost: another process has the run now."""
    run.remote = {**run.remote, **what}
    run.keep("remote")

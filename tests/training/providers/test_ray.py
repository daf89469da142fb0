"""A run on a Ray cluster: a real head node on this machine, a real job, files there and back.

Skipped where Ray's client is not installed (the extra “ray”, some 400 MB, is no part of the development tools).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from assistants.background import WorkCancelled
from assistants.models import Assistant
from generation.adapters import check_adapter
from tests.factories import make_assistant
from tests.training.finetune.conftest import QUICK, make_dataset
from training.finetune import elsewhere
from training.finetune.bases import from_state
from training.models import Adapter, Run, TrainingProvider
from training.providers import ray_jobs, ray_package
from training.providers.client import ProviderError
from training.providers.returning import Returning
from training.providers.services import save_provider
from training.services import start_run

try:
    from ray.job_submission import JobSubmissionClient
except ImportError:
    JobSubmissionClient = None

needs_ray = pytest.mark.skipif(JobSubmissionClient is None, reason="Ray is not installed: pip install -e '.[ray]'")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a head node's dashboard. Its jobs find a Python with the libraries, and not this checkout."""
    state = tempfile.mkdtemp(prefix="ray")  # short: sockets lie in it
    port = free_port()
    ray = Path(sys.executable).with_name("ray")
    options = {"port": free_port(), "dashboard-port": port, "temp-dir": state, "num-cpus": 2, "num-gpus": 0}
    options |= {"ray-client-server-port": free_port(), "object-store-memory": 100_000_000}
    path = f"{ray.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RATCHET", "DJANGO"))}
    environment |= {"PATH": path, "PYTHONPATH": "", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "OMP_NUM_THREADS": "1"}
    command = [str(ray), "start", "--head", "--block", "--disable-usage-stats", "--dashboard-host=127.0.0.1"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (Path(state) / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=state)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while True:
            try:
                JobSubmissionClient(address).list_jobs()
                break
            except (ConnectionError, RuntimeError):
                assert head.poll() is None, (Path(state) / "head.log").read_text()[-2000:]
                assert time.monotonic() < until, "the head node did not come up"
                time.sleep(1)
        yield address
    finally:
        head.terminate()
        head.wait(30)
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def assistant(db: None, run_settings: Any) -> Assistant:
    return make_assistant()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "POLL_SECONDS", 0.5)
    monkeypatch.setattr(ray_jobs, "BEAT_SECONDS", 0.2)


def queued(assistant: Assistant, address: str, folder: Path, **settings: Any) -> Run:
    provider = save_provider(
        assistant=assistant, kind="ray", name="Cluster", base_url=address, model="", api_key="", actor=None,
        folder=str(folder),
    )  # fmt: skip
    run = start_run(
        assistant=assistant, dataset=make_dataset(assistant), settings={**QUICK, **settings}, provider=provider
    )
    assert run.claim()
    return run


@needs_ray
@pytest.mark.django_db(transaction=True)
def test_a_run_trains_there_is_cancelled_and_goes_on_there(
    assistant: Assistant, cluster: str, tmp_path: Path, quick: None
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    run = queued(assistant, cluster, there, epochs=60.0)
    assert not run.needs_device
    client = JobSubmissionClient(cluster)

    def cancel_when_trained() -> None:
        while not list(there.glob("ratchet-runs/*/*/checkpoints/*/complete.json")):
            time.sleep(0.2)
        Run.objects.get(pk=run.pk).request_cancel()
        connection.close()

    canceller = threading.Thread(target=cancel_when_trained, daemon=True)
    canceller.start()
    with pytest.raises(WorkCancelled):
        ray_jobs.perform(run)
    canceller.join(10)
    first = run.remote["job"]
    until = time.monotonic() + 30
    while client.get_job_info(first).status.value != "STOPPED":
        assert time.monotonic() < until
        time.sleep(0.5)
    assert not Adapter.objects.exists()

    run.refresh_from_db()
    Run.objects.filter(pk=run.pk).update(state=Run.State.QUEUED, cancel_requested_at=None, token=None)
    assert run.claim()
    ray_jobs.perform(run)

    run.refresh_from_db()
    assert run.state == Run.State.SUCCEEDED
    assert run.remote["job"] != first
    assert run.progress["start"]["resumed_from"] > 0, "it went on from the cluster's checkpoint"
    adapter = Adapter.objects.get(run=run)
    assert adapter.source == Adapter.Source.RUN
    found = check_adapter(from_state(adapter.folder), base_digest=run.base_digest, prompt_digest=run.prompt_digest)
    assert found.manifest["steps"] == run.progress["total"] == run.metrics.latest("step").step
    assert list(there.glob("ratchet-runs/*")) == [], "nothing of it stays there"
    assert "Plan" not in client.get_job_logs(run.remote["job"]).split('"event": "file"')[0].split('"samples"')[0]


@needs_ray
@pytest.mark.django_db(transaction=True)
def test_a_performer_that_takes_over_finds_the_job(
    assistant: Assistant, cluster: str, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queued(assistant, cluster, tmp_path)

    class Gone(BaseException):
        """As a kill: nothing of the performer runs any more."""

    def die(*args: Any) -> None:
        raise Gone

    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # of somebody's shell: not where this run goes
    with monkeypatch.context() as killed:
        killed.setattr(ray_jobs, "_follow", die)
        with pytest.raises(Gone):
            ray_jobs.perform(run)
    again = Run.objects.get(pk=run.pk)
    # Nor does it look for a job that the cluster has forgotten.
    assert not ray_jobs._is_there(again, JobSubmissionClient(cluster), "ratchet-of-yesterday")
    ray_jobs.perform(again)
    again.refresh_from_db()
    assert again.state == Run.State.SUCCEEDED
    assert again.remote["jobs"] == 1
    assert [job.metadata["ratchet"] for job in JobSubmissionClient(cluster).list_jobs()].count(
        again.remote["job"].rpartition("-")[0]
    ) == 1


@needs_ray
@pytest.mark.django_db(transaction=True)
def test_what_the_cluster_lacks_is_one_sentence(
    assistant: Assistant, cluster: str, tmp_path: Path, quick: None
) -> None:
    run = queued(assistant, cluster, tmp_path)
    TrainingProvider.objects.filter(pk=run.provider_id).update(model="/no/such/base")
    with pytest.raises(ValueError, match=r"The base model is not at /no/such/base on the cluster. Put it there."):
        ray_jobs.perform(Run.objects.get(pk=run.pk))


@needs_ray
def test_a_cluster_that_is_not_there_is_one_sentence(assistant: Assistant, tmp_path: Path) -> None:
    run = queued(assistant, f"http://127.0.0.1:{free_port()}", tmp_path)
    with pytest.raises(ProviderError, match=r"does not answer. Enter the address of its dashboard"):
        ray_jobs.perform(run)


@pytest.mark.skipif(JobSubmissionClient is not None, reason="Ray is installed")
def test_without_its_client_the_run_says_what_to_install(assistant: Assistant, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="Install the extra “ray”"):
        ray_jobs.perform(queued(assistant, "http://127.0.0.1:8265", tmp_path))


class Shelf:
    """What a cluster remembers of jobs that have ended well: what each of them said."""

    def __init__(self, *said: list[dict[str, Any]]) -> None:
        self.said, self.jobs = list(said), dict[str, str]()

    def submit_job(self, *, submission_id: str, **_: Any) -> None:
        self.jobs[submission_id] = "".join(f"{json.dumps(event)}\n" for event in self.said.pop(0))

    def get_job_info(self, job: str) -> Any:
        if job not in self.jobs:
            raise RuntimeError("Request failed with status code 404")
        return SimpleNamespace(status="SUCCEEDED", message="")

    def get_job_logs(self, job: str) -> str:
        return self.jobs[job]


def test_what_came_back_is_read_again_and_what_came_broken_is_made_again(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queued(assistant, "http://127.0.0.1:8265", tmp_path)
    monkeypatch.setattr(ray_jobs, "pack", lambda run, folder, mark: folder / "work" / "package")
    content = b"{}"
    whole = [
        {"event": "file", "name": "manifest.json", "piece": 0, "data": base64.b64encode(content).decode()},
        {"event": "file_end", "name": "manifest.json", "pieces": 1, "sha256": hashlib.sha256(content).hexdigest()},
        {"event": "delivered", "files": ["manifest.json"]},
    ]
    cluster = Shelf(whole[:1], whole)
    with pytest.raises(ProviderError, match="did not come back whole"):
        ray_jobs._train(run, cluster, tmp_path)
    for _ in range(2):  # the second time as after a kill before the adapter was registered
        ray_jobs._train(Run.objects.get(pk=run.pk), cluster, tmp_path)
        assert (tmp_path / "adapter" / "manifest.json").read_bytes() == content
    assert len(cluster.jobs) == 2


def test_a_long_training_is_not_taken_for_a_forgotten_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 1\nexit 3\n")
    python.chmod(0o700)
    folder = tmp_path / "ratchet-runs" / "long"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    monkeypatch.setattr(elsewhere, "SIGN_OF_LIFE", 0.1)
    monkeypatch.setattr(sys, "executable", str(python))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert elsewhere.train(folder / "config.json") == 3
    finally:
        signal.signal(signal.SIGTERM, before)
    elsewhere.forget_old(folder.parent, days=1)
    assert folder.is_dir()


def test_a_base_that_is_too_large_is_not_sent(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = queued(assistant, "http://127.0.0.1:8265", tmp_path)
    monkeypatch.setattr(ray_package, "MAX_BASE_BYTES", 1000)
    with pytest.raises(ProviderError, match="too much to send with each run"):
        ray_package.pack(run, tmp_path, "mark")


Damage = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda events: events, ""),
        (lambda events: [*events[:1], *events[2:]], "cannot be read"),
        (lambda events: [{**events[0], "name": "../../evil.py"}, *events[1:]], "is no file of an adapter"),
        (lambda events: [{**events[0], "data": "%%%"}, *events[1:]], "cannot be read"),
        (lambda events: events[:-1], "some of its files are missing"),
    ],
)
def test_what_comes_back_is_whole_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage, said: str
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(os.urandom(100_000))
    (made / "README.md").write_text("card")
    elsewhere.deliver(made, most=200_000)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [e for e in events if e.get("name") == "adapter_model.safetensors"] + [
        e for e in events if e.get("name") != "adapter_model.safetensors"
    ]
    returning = Returning(tmp_path / "back", most=10_000_000)
    assert all(returning.take(event) for event in damage(events))
    assert said in returning.finish()
    if not said:
        assert returning.finish() == ""
        for path in made.iterdir():
            assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "evil.py").exists()
    with pytest.raises(elsewhere.CannotTrain, match="Set a lower rank, or raise the limit"):
        elsewhere.deliver(made, most=100)


def test_what_comes_back_has_a_limit(tmp_path: Path) -> None:
    """A log is somebody else's: one that goes on and on once filled the disk."""
    returning = Returning(tmp_path / "back", most=5000)
    piece = {"event": "file", "name": "adapter_model.safetensors", "data": base64.b64encode(b"x" * 2000).decode()}
    for number in range(50):
        assert returning.take({**piece, "piece": number})
    assert not any(path.stat().st_size for path in (tmp_path / "back").glob("*"))
    assert "more than 5,000 bytes" in returning.finish()


def test_a_long_log_is_fetched_the_more_rarely() -> None:
    assert ray_jobs.pause_after(10_000) == ray_jobs.POLL_SECONDS
    assert ray_jobs.pause_after(2_000_000) == 10.0
    assert ray_jobs.pause_after(10**9) == 60.0

"""The processes that make up the platform, and how to find every one that they ever started.

Each carries ``RATCHET_SUPERVISOR=<state folder>`` in its environment, which children inherit however often they fork or
detach. That is what makes a clean stop possible: a process group misses whoever left it (a training run does).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from config.postgres import place

MARKER = "RATCHET_SUPERVISOR"
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Program:
    """One child of the supervisor. ``ready`` says whether it can do its work; None: as soon as it runs.

    ``marked`` is False for what `sweep` must never end: the database, which everything else needs until it stopped.
    ``watched``: whether it is started again when it lives but is not ready any more.
    """

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    marked: bool = True
    watched: bool = False


def database(var: Path) -> Program:
    """The embedded PostgreSQL."""
    command = [sys.executable, "-m", "config.dbserver", str(var)]
    return Program("db", command, ready=lambda: accepts(place(var).socket), marked=False)


def web(host: str, port: int) -> Program:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
    command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--host", host, "--port", str(port)]
    command += ["--timeout-graceful-shutdown", "3", "--lifespan", "off", "--no-access-log", "--no-use-colors"]
    command += ["--http", "config.wire:PatientProtocol", "--ws", "none"]
    return Program(
        "web",
        command,
        {"RATCHET_PROCESS": "web", "RATCHET_URL": f"http://{shown}:{port}"},
        ready=lambda: answers(f"http://{shown}:{port}/readyz"),
    )


def worker() -> Program:
    """Short jobs: scrubbing, embedding, the schedule."""
    return Program("worker", [sys.executable, str(ROOT / "manage.py"), "worker"], {"RATCHET_PROCESS": "worker"})


def launcher() -> Program:
    """Launches long work, which then runs in processes of its own. The queue is chosen by environment variable: the
    `--name` option of qcluster comes too late on Linux and serves the default queue."""
    env = {"RATCHET_PROCESS": "worker", "Q_CLUSTER_NAME": "train"}
    return Program("train", [sys.executable, str(ROOT / "manage.py"), "qcluster"], env)


def engine(url: str, env: dict[str, str]) -> Program:
    """The base model with its adapters. Knows no Django, so it gets its settings through the environment."""
    command = [sys.executable, "-m", "generation.server"]
    return Program("engine", command, env, ready=lambda: answers("/healthz", url), watched=True)


def answers(path: str, engine_url: str = "", *, seconds: float = 2.0) -> bool:
    """Whether a GET gives 200. ``engine_url`` may be ``unix:<socket>`` or http(s)://…"""
    transport = None
    base = engine_url
    if engine_url.startswith("unix:"):
        transport = httpx.HTTPTransport(uds=engine_url.removeprefix("unix:"))
        base = "http://engine"
    try:
        with httpx.Client(base_url=base, transport=transport, timeout=seconds, trust_env=False) as client:
            return client.get(path).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def accepts(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def child_env(var: Path, extra: dict[str, str], *, marked: bool = True) -> dict[str, str]:
    """Environment of a child: ours, the paths that make imports work from any folder, and the marker."""
    env = {**os.environ, **extra, "PYTHONUNBUFFERED": "1", "RATCHET_VAR": str(var)}
    env.pop(MARKER, None)
    if marked:
        env[MARKER] = str(var)
    paths = [str(ROOT), str(ROOT / "platform"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return env


def marked(var: Path) -> list[psutil.Process]:
    """Living processes that carry the marker of this state folder, without ourselves and those who started us."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            if process.environ().get(MARKER) == str(var) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's
    return found


def terminate(processes: Iterable[psutil.Process], *, grace: float) -> None:
    """SIGTERM, up to ``grace`` seconds, then SIGKILL."""
    left = list(processes)
    for process in left:
        _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(left, timeout=grace)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except (psutil.Error, OSError):
        return


def sweep(var: Path, *, grace: float) -> int:
    """Ends everything that carries the marker, also what is started meanwhile. Returns how many there were."""
    count = 0
    deadline = time.monotonic() + grace + 15
    while (left := marked(var)) and time.monotonic() < deadline:
        count += len(left)
        terminate(left, grace=grace)
        grace = min(grace, 1.0)
    return count

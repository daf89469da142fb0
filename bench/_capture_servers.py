"""One PostgreSQL for everybody, web processes of ours on databases of it, and clients in threads that load them."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from config import dbserver, postgres, processes
from config.env import envsecret

ROOT = Path(__file__).resolve().parent.parent


class Database:
    """The embedded PostgreSQL as the platform starts it: fsync and synchronous_commit are on, and looked at."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.password = envsecret(postgres.PASSWORD_NAME, folder=state / "secrets")
        self.log = (state / "db.log").open("ab")
        self.child, self.spot = dbserver.start(state, self.password, output=self.log)
        dbserver.wait_ready(self.spot, self.password, self.child)
        with self.connect(postgres.DATABASE) as raw:
            for name in ("fsync", "synchronous_commit"):
                (value,) = raw.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() or ("?",)
                assert value == "on", f"{name} is {value}: this would compare nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        dbserver.stop(self.child, seconds=60)
        self.log.close()

    def connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.spot.run), port=postgres.PORT, user=postgres.ROLE, password=self.password, dbname=name,
            autocommit=True,
        )  # fmt: skip

    def url(self, name: str, scheme: str = "postgresql") -> str:
        """With the socket's folder behind the question mark, where every client library understands it."""
        login = f"{postgres.ROLE}:{quote(self.password, safe='')}"
        return f"{scheme}://{login}@/{name}?host={quote(str(self.spot.run), safe='/')}&port={postgres.PORT}"

    def names(self) -> set[str]:
        with self.connect(postgres.DATABASE) as raw:
            return {name for (name,) in raw.execute("SELECT datname FROM pg_database")}

    def create(self, name: str, *, afresh: bool) -> None:
        with self.connect(postgres.DATABASE) as raw:
            if afresh:
                raw.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            if name not in self.names():
                raw.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def schema_digest() -> str:
    """Of all migrations: a database that was filled under others is of no use."""
    files = sorted(ROOT.glob("*/migrations/0*.py")) + sorted(ROOT.glob("platform/*/migrations/0*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:8]


class Process:
    """A server with a port of its own, until the block ends; whatever it started goes with it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], *, port: int, log: Path, ready: str) -> None:
        self.port = port
        self.handle = log.open("ab")
        self.child = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=self.handle, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=log.parent,
        )  # fmt: skip
        self.log, self.ready = log, ready

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 300
        while not processes.answers(self.ready, f"http://127.0.0.1:{self.port}"):
            if self.child.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"it does not start; see {self.log}")
            time.sleep(0.3)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        import psutil

        try:
            parent = psutil.Process(self.child.pid)
            processes.terminate([*parent.children(recursive=True), parent], grace=10)
        except psutil.NoSuchProcess:
            pass
        self.child.wait(30)
        self.handle.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(state: Path, url: str) -> Process:
    """Our web process on one database, with the supervisor's own command line."""
    port = free_port()
    program = processes.web("127.0.0.1", port)
    # One client stands for many here, and none is to be told to wait.
    extra = {**program.env, "DATABASE_URL": url, "RATCHET_RATE_LIMIT": "", "RATCHET_ENV_FILE": os.devnull}
    env = processes.child_env(state, extra, marked=False)
    return Process(program.command, env, port=port, log=state / f"web-{port}.log", ready="/readyz")


def manage(state: Path, url: str, *arguments: str) -> None:
    env = processes.child_env(state, {"DATABASE_URL": url, "RATCHET_ENV_FILE": os.devnull}, marked=False)
    subprocess.run([sys.executable, "-W", "ignore", str(ROOT / "manage.py"), *arguments], env=env, check=True)


@dataclass(frozen=True)
class Timed:
    """``turns`` took ``took`` seconds over all threads; ``seconds`` of each request."""

    turns: int
    took: float
    seconds: list[float]

    @property
    def rate(self) -> float:
        """Turns per second."""
        return self.turns / self.took


def load(port: int, path: str, headers: Mapping[str, str], bodies: Iterable[bytes], *, per_body: int, threads: int,
         until: Callable[[], bool] | None = None, statuses: Sequence[int] = (200, 201, 207)) -> Timed:  # fmt: skip
    """Posts every body once. ``until``: what must be true before the clock stops."""
    waiting = list(bodies)
    total = len(waiting) * per_body
    lock = threading.Lock()
    seconds: list[float] = []
    failed: list[str] = []

    def work() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                if not waiting or failed:
                    return
                body = waiting.pop()
            begun = time.perf_counter()
            client.request("POST", path, body, dict(headers))
            answer = client.getresponse()
            said = answer.read()
            seconds.append(time.perf_counter() - begun)
            if answer.status not in statuses:
                failed.append(f"{path} answered {answer.status}: {said[:300]!r}")

    started = time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise RuntimeError(failed[0])
    while until is not None and not until():
        time.sleep(0.02)
        if time.perf_counter() - started > 600:
            raise RuntimeError("not everything that was accepted is there after ten minutes")
    return Timed(total, time.perf_counter() - started, seconds)


class CopyTarget:
    """A table with one bytea column that is not compressed, and connections that COPY into it, a commit per batch: the
    least that PostgreSQL must do to keep these bytes. Opened before the clock runs, as the web process's are."""

    def __init__(self, database: Database, name: str, threads: int) -> None:
        self.database, self.name, self.copied = database, name, 0
        with database.connect(name) as raw:
            raw.execute("DROP TABLE IF EXISTS raw_copy")
            raw.execute("CREATE TABLE raw_copy (id bigserial PRIMARY KEY, payload bytea STORAGE EXTERNAL NOT NULL)")
        self.connections = [database.connect(name) for _ in range(threads)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for raw in self.connections:
            raw.close()
        with self.database.connect(self.name) as raw:
            (stored,) = raw.execute("SELECT count(*) FROM raw_copy").fetchone() or (0,)
            raw.execute("DROP TABLE raw_copy")
        assert kind is not None or stored == self.copied

    def copy(self, payloads: Sequence[bytes], *, per_copy: int) -> Timed:
        batches = [payloads[start : start + per_copy] for start in range(0, len(payloads), per_copy)]
        lock = threading.Lock()

        def work(raw: psycopg.Connection) -> None:
            while True:
                with lock:
                    if not batches:
                        return
                    batch = batches.pop()
                with raw.cursor().copy("COPY raw_copy (payload) FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(["bytea"])
                    for payload in batch:
                        copy.write_row((payload,))

        started = time.perf_counter()
        workers = [threading.Thread(target=work, args=(raw,)) for raw in self.connections]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.copied += len(payloads)
        return Timed(len(payloads), time.perf_counter() - started, [])

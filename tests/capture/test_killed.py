"""Processes die at any moment while turns come in: what was acknowledged is there in the end, once, and scrubbed.

The real platform (supervisor, PostgreSQL with fsync, uvicorn, worker) in a state folder of its own; clients that try
again until they are answered, as ours and OpenTelemetry's do; and SIGKILL for web, worker and database in turn.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from config import postgres
from config.env import envsecret
from config.processes import ROOT, child_env
from tests.capture.conftest import turn_item
from tests.capture.otlp_samples import Bot, body_of, trace_id

SEED = 20
BATCH = 4
KILLS = ("web", "db", "worker", "db", "web", "worker")
PAUSE = (0.4, 1.6)
PATIENCE = 300
"""Seconds until the test gives up; on an idle machine the whole takes about twenty."""
_SETUP = """
import django
django.setup()
from assistants.models import Assistant
from assistants.services import issue_key
assistant = Assistant.objects.create(slug="bot", name="Bot")
print(issue_key(assistant=assistant, name="frontend", scopes=["log", "read"])[1])
"""


class Platform:
    """`manage.py up` as a child, with what it needs to be looked into and shot at."""

    def __init__(self, var: Path) -> None:
        self.var = var
        extra = {
            "RATCHET_ENV_FILE": os.devnull, "RATCHET_TRACE_SETTLE_SECONDS": "0", "RATCHET_RATE_LIMIT": "",
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }  # fmt: skip
        self.env = child_env(var, extra, marked=False)
        for name in ("DATABASE_URL", "RATCHET_TEST_DATABASE"):
            self.env.pop(name, None)
        # Of our own: while the web process is down, another platform of this machine that looks for a free port, from
        # the usual one on, would take its place and answer.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        what = ["--only", "db,web,worker", "--port", port]
        command = [sys.executable, str(ROOT / "manage.py"), "up", *what, "--quiet", "--attached"]
        self.child = subprocess.Popen(
            command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.port = self._wait()
        self.key = self.python(_SETUP).split()[-1]
        self.password = envsecret(postgres.PASSWORD_NAME, folder=var / "secrets")

    def _wait(self) -> int:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if match := re.search(r"running at http://[^:]+:(\d+)", line):
                threading.Thread(target=self.child.stdout.read, daemon=True).start()
                return int(match[1])
        raise AssertionError("the platform did not start")

    def python(self, code: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], env=self.env, check=True, capture_output=True, text=True)
        return done.stdout

    def kill(self, what: str, dice: random.Random) -> None:
        """One of the processes that make it up: any fork of the worker may be the one."""
        marks = {"web": "uvicorn", "worker": "worker", "db": "-D"}
        found = []
        for process in psutil.Process(self.child.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if marks[what] in line and not (what == "db" and "postgres" not in line[0]):
                    found.append(process)
        if found:
            with contextlib.suppress(psutil.Error):
                dice.choice(found).send_signal(signal.SIGKILL)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        spot = postgres.place(self.var)
        with psycopg.connect(
            host=str(spot.run), port=postgres.PORT, user=postgres.ROLE, password=self.password,
            dbname=postgres.DATABASE,
        ) as raw:  # fmt: skip
            return raw.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(60)


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    found = Platform(tmp_path_factory.mktemp("k"))
    yield found
    found.stop()


class Client(threading.Thread):
    """Posts what ``make`` gives, each until it is answered, and keeps the names of what was acknowledged."""

    def __init__(self, platform: Platform, path: str, make: Callable[[int], tuple[list[str], str, bytes]]) -> None:
        super().__init__(daemon=True)
        self.platform, self.path, self.make = platform, path, make
        self.enough = threading.Event()
        self.acknowledged: list[str] = []
        self.tries = 0
        self.refused: AssertionError | None = None
        """An answer that it should never get; a thread's own end would go unnoticed."""

    def run(self) -> None:
        try:
            self._send()
        except AssertionError as error:
            self.refused = error

    def _send(self) -> None:
        number = 0
        while not self.enough.is_set():
            names, kind, body = self.make(number)
            while not self._post(kind, body):
                time.sleep(0.1)
            self.acknowledged += names
            number += 1
            time.sleep(0.05)  # a few hundred turns are enough: they are all scrubbed in the end

    def _post(self, kind: str, body: bytes) -> bool:
        self.tries += 1
        client = http.client.HTTPConnection("127.0.0.1", self.platform.port, timeout=10)
        headers = {"Authorization": f"Bearer {self.platform.key}", "Content-Type": kind}
        try:
            client.request("POST", self.path, body, headers)
            answer = client.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()
        if answer.status >= 500:
            return False
        assert answer.status in (200, 207), said
        if answer.status == 207:
            assert {row["status"] for row in json.loads(said)["results"]} <= {"created", "duplicate"}
        return True


def batches(client: str) -> Callable[[int], tuple[list[str], str, bytes]]:
    def make(number: int) -> tuple[list[str], str, bytes]:
        names = [f"{client}-{number}-{n}" for n in range(BATCH)]
        turns = [turn_item(id=name, conversation=f"{client}-{number // 2}") for name in names]
        return names, "application/json", json.dumps(turns).encode()

    return make


def exports(number: int) -> tuple[list[str], str, bytes]:
    spans = Bot().openinference(session=f"s-{number}")
    return [trace_id(spans)], "application/x-protobuf", body_of(spans)


def test_what_was_acknowledged_is_there_once_whatever_is_killed(platform: Platform) -> None:
    dice = random.Random(SEED)
    clients = [Client(platform, "/api/v1/turns/batch", batches(name)) for name in ("a", "b")]
    clients.append(Client(platform, "/v1/traces", exports))
    for client in clients:
        client.start()
    for what in KILLS:
        time.sleep(dice.uniform(*PAUSE))
        platform.kill(what, dice)
    for client in clients:
        client.enough.set()
    deadline = time.monotonic() + PATIENCE
    for client in clients:
        client.join(max(1.0, deadline - time.monotonic()))
        assert not client.is_alive(), "a client was never answered"
        if client.refused is not None:
            raise client.refused
    names = [name for client in clients for name in client.acknowledged]
    assert sum(client.tries for client in clients) > len(names) / BATCH, "nothing was ever in the way"
    wait_until_scrubbed(platform, deadline)
    stored = [name for (name,) in platform.rows("SELECT client_id FROM capture_turn")]
    assert set(names) <= set(stored)
    assert len(stored) == len(set(stored))
    assert platform.rows("SELECT count(*) FROM capture_turn t WHERE 2 <> (SELECT count(*) FROM capture_retrieval r "
                         "WHERE r.turn_id = t.id) AND t.client_id LIKE '%-%'") == [(0,)]  # fmt: skip


def wait_until_scrubbed(platform: Platform, deadline: float) -> None:
    query = """SELECT (SELECT count(*) FROM capture_quarantine), (SELECT count(*) FROM capture_waitingspans),
        (SELECT count(*) FROM capture_quarantine WHERE state = 'held')"""
    left: tuple[Any, ...] = (-1, -1, -1)
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.Error):
            (left,) = platform.rows(query)
            assert not left[2], platform.rows("SELECT error FROM capture_quarantine WHERE state = 'held'")
            if not any(left):
                return
        time.sleep(0.3)
    raise AssertionError(f"still waiting: {left}")

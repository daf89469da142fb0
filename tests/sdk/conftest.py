"""The real application over HTTP, with a door before it, and keys: one that may log, one that may only read, and one of
another assistant."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from assistants import limits
from assistants.models import Assistant
from assistants.services import issue_key
from capture.models import Receipt, Turn
from capture.services import scrub_waiting
from ratchet_client import Client, Problem
from tests import servers
from tests.factories import make_assistant
from tests.sdk.door import Door

SDK = Path(__file__).resolve().parents[2] / "sdk"


@pytest.fixture(scope="package")
def web_url() -> Iterator[str]:
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not
    with servers.serving(application) as address:
        yield address


@dataclass
class House:
    """An assistant, its log, and the way to it. ``url`` leads through the door."""

    assistant: Assistant
    other: Assistant
    secret: str
    reader: str
    other_secret: str
    door: Door
    problems: list[Problem]
    clients: list[Client]

    @property
    def url(self) -> str:
        return self.door.url

    def client(self, **options: Any) -> Client:
        """Quick, so that tests are."""
        quick = {"flush_seconds": 0.05, "retry_seconds": (0.05, 0.2), "on_problem": self.problems.append}
        client = Client(options.pop("url", self.url), options.pop("key", self.secret), **{**quick, **options})
        self.clients.append(client)
        return client

    def received(self) -> set[str]:
        """Ids of the turns that were taken."""
        ids = Receipt.objects.filter(assistant=self.assistant).values_list("client_id", flat=True)
        return {name for name in ids if not name.startswith(("feedback", "update"))}

    def turns(self) -> dict[str, Turn]:
        scrub_waiting()
        return {turn.client_id: turn for turn in Turn.objects.of(self.assistant).with_contexts()}

    def program(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        """Another process, which knows the client and nothing of the platform. ``sys.argv``: url, key, arguments."""
        command = [sys.executable, "-c", code, self.url, self.secret, *map(str, arguments)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SDK), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )


@pytest.fixture
def house(web_url: str, transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    limits.reset()
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    assistant, other = make_assistant(), make_assistant()
    _, secret = issue_key(assistant=assistant, name="frontend", scopes=["log"])
    _, reader = issue_key(assistant=assistant, name="reader", scopes=["read"])
    _, other_secret = issue_key(assistant=other, name="frontend", scopes=["log"])
    door = Door(web_url)
    door.open()
    house = House(assistant, other, secret, reader, other_secret, door, [], [])
    yield house
    for client in house.clients:
        client.close(0.1)
    door.shut()
    connection.settings_dict["CONN_MAX_AGE"] = age
    limits.reset()


def until(found: Callable[[], Any], seconds: float = 15) -> Any:
    """What ``found`` returns as soon as it is something."""
    ends = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)
    return value

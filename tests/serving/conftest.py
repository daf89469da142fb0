"""A tiny engine and the web application, both over HTTP, with an assistant that knows a little."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from django.db import connection
from openai import DefaultHttpxClient, OpenAI

from assistants import limits
from assistants.models import ApiKey, Assistant
from assistants.services import issue_key
from capture.models import Quarantine, Turn
from capture.services import scrub_waiting
from knowledge.services import load_document
from serving import spool
from tests import servers
from tests.factories import make_assistant
from tests.tiny_model import shared_base

DOCUMENTS = {
    "leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
}
QUESTION = "What does it cost to leave a fixed plan early?"


@pytest.fixture(scope="package")
def engine_url() -> Iterator[str]:
    """The engine at the address that the settings name."""
    socket = Path(django_settings.RATCHET_ENGINE_URL.removeprefix("unix:"))
    adapters = Path(django_settings.RATCHET_ADAPTERS_DIR)
    adapters.mkdir(parents=True, exist_ok=True)
    with servers.engine(
        shared_base(), uds=socket, token=django_settings.RATCHET_ENGINE_KEY, adapters=adapters
    ) as address:
        yield address
    socket.unlink(missing_ok=True)


@pytest.fixture(scope="package")
def web_url(engine_url: str) -> Iterator[str]:
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not

    with servers.serving(application) as address:
        yield address


@dataclass
class Shop:
    """An assistant with documents, a key that may chat and log, and clients that use it."""

    assistant: Assistant
    key: ApiKey
    secret: str
    url: str
    openai: OpenAI
    http: httpx.Client

    def ask(self, model: str = "", question: str = QUESTION, **more: Any) -> Any:
        return self.openai.chat.completions.create(
            model=model or self.assistant.slug,
            messages=[{"role": "user", "content": question}],
            **{"max_tokens": 12, **more},
        )

    def post(self, body: Any, *, secret: str | None = None, **more: Any) -> httpx.Response:
        header = {} if secret == "" else {"Authorization": f"Bearer {secret or self.secret}"}
        return self.http.post("/v1/chat/completions", json=body, headers=header, **more)


@pytest.fixture
def shop(web_url: str, transactional_db: None, settings: Any) -> Iterator[Shop]:
    """Embeds through the engine, as a web process does, and keeps no idle connection in the server's threads."""
    settings.PROCESS = "web"
    settings.RATCHET_BASE_MODEL = str(shared_base())
    limits.reset()
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    assistant = make_assistant()
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    key, secret = issue_key(assistant=assistant, name="bot", scopes=["chat", "log"])
    with (
        httpx.Client(base_url=web_url, trust_env=False, timeout=30) as http,
        DefaultHttpxClient(trust_env=False, timeout=30) as transport,
    ):
        client = OpenAI(base_url=f"{web_url}/v1", api_key=secret, max_retries=0, http_client=transport)
        yield Shop(assistant, key, secret, web_url, client, http)
        until(lambda: not _captures_running(), "captures still run")
    connection.settings_dict["CONN_MAX_AGE"] = age
    for path in spool.folder().iterdir():
        path.unlink()


def _captures_running() -> bool:
    from serving import capturing

    return bool(capturing.running())


def until(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def turn_of(answer_id: str) -> Turn:
    """The stored turn of an answer: captured behind it, then scrubbed."""
    until(lambda: not _captures_running() and Quarantine.objects.exists(), "the turn was not captured")
    report = scrub_waiting()
    assert report.held == 0
    return Turn.objects.with_contexts().get(client_id=answer_id)

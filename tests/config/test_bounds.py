"""How much of a request is taken off the line: over HTTP, by the application that serves."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from config import bounds
from tests import servers
from tests.factories import make_assistant, make_user
from tests.tiny_model import shared_adapter, shared_base
from training.models import Adapter

MIB = 2**20


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not
    with servers.serving(application) as address:
        yield address


@pytest.fixture
def http(web: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web, trust_env=False, timeout=60) as client:
        yield client


def declare(web: str, path: str, size: int) -> bytes:
    """What is answered to somebody who says how much will come, and sends nothing of it."""
    place = urlsplit(web)
    with socket.create_connection((place.hostname, place.port), timeout=20) as line:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n"
        line.sendall(head.encode())
        found = b""
        while piece := line.recv(65536):
            found += piece
    return found


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/admin/login/", b"text/plain"),
        ("/api/v1/documents", b"urn:ratchet:too-large"),
        ("/v1/chat/completions", b'"type": "invalid_request_error"'),
        (bounds.ADAPTER_IMPORT, b"import_adapter"),
    ],
)
def test_what_says_that_it_is_too_large_is_refused_at_once(web: str, path: str, said: bytes) -> None:
    answer = declare(web, path, bounds.limit_of(path) + 1)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert said in answer


def test_what_does_not_say_so_is_read_up_to_the_limit(
    http: httpx.Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = settings.RATCHET_UPLOAD_MAX_BYTES = 1000
    monkeypatch.setattr(bounds, "FORM", 1000)
    sent = []

    def pieces() -> Iterator[bytes]:
        for _ in range(200):
            sent.append(1)
            yield b"x" * 100

    answer = http.post("/admin/login/", content=pieces())
    assert answer.status_code == 413
    assert "MiB" in answer.text


def test_each_address_takes_what_its_page_can_use(settings: Any) -> None:
    assert bounds.limit_of("/v1/chat/completions") < bounds.limit_of("/admin/knowledge/document/upload/")
    assert bounds.limit_of(bounds.ADAPTER_IMPORT) > settings.RATCHET_MAX_ADAPTER_BYTES
    assert reverse("admin:training_adapter_import") == bounds.ADAPTER_IMPORT


@pytest.fixture
def ada(transactional_db: None, settings: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Cookies of an admin who has come to a page with a form."""
    settings.RATCHET_BASE_MODEL = str(shared_base())
    settings.RATCHET_ADAPTERS_DIR = tmp_path / "adapters"
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    user = make_user("ada")
    make_assistant("bot", members={"admin": [user]})
    client = Client()
    client.force_login(user)
    client.get(bounds.ADAPTER_IMPORT)
    yield {name: morsel.value for name, morsel in client.cookies.items()}
    connection.settings_dict["CONN_MAX_AGE"] = age


def brought(tmp_path: Path, assistant: Any, size: int) -> Path:
    """An adapter as hubs keep it, with ``size`` bytes beside it that are not taken in."""
    folder = shutil.copytree(shared_adapter(assistant.prompt_digest), tmp_path / "brought")
    path = tmp_path / "adapter.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted(folder.iterdir()):
            archive.write(one, one.name)
        archive.writestr("tokenizer.json", b" " * size)
    return path


def test_an_adapter_larger_than_other_bodies_comes_in_by_the_page(
    http: httpx.Client, ada: dict[str, str], tmp_path: Path, settings: Any
) -> None:
    from assistants.models import Assistant

    assistant = Assistant.objects.get()
    path = brought(tmp_path, assistant, settings.DATA_UPLOAD_MAX_MEMORY_SIZE + MIB)
    http.cookies.update(ada)
    form = {"assistant": str(assistant.pk), "csrfmiddlewaretoken": ada["csrftoken"]}

    def post() -> httpx.Response:
        with path.open("rb") as file:
            return http.post(bounds.ADAPTER_IMPORT, data=form, files={"file": ("adapter.zip", file)})

    settings.RATCHET_MAX_ADAPTER_BYTES = 18 * MIB
    refused = post()
    assert refused.status_code == 200
    assert "The zip is larger than 21 MiB" in refused.text
    assert "RATCHET_MAX_ADAPTER_BYTES" in refused.text
    assert not Adapter.objects.exists()

    settings.RATCHET_MAX_ADAPTER_BYTES = 64 * MIB
    assert post().status_code == 302
    assert Adapter.objects.get().source == "imported"

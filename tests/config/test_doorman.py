"""Large bodies of strangers: over HTTP, by the application that serves. What is stored is seen where it would be."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.core.files import uploadedfile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.services import issue_key
from config import doorman
from tests import servers
from tests.factories import make_assistant, make_user

LARGE = doorman.FREE + 1_000_000
PAGES = [
    reverse("admin:training_adapter_import"),
    reverse("admin:knowledge_document_add"),
    reverse("admin:training_curatedset_add"),
    reverse("admin:training_benchmark_add"),
    reverse("admin:training_datasetversion_add"),
    reverse("admin:login"),
    "/there/is/no/such/page",
]
"""All with a form for files, and two without."""
PROGRAMS = [
    "/api/v1/turns",
    "/api/v1/turns/batch",
    "/api/v1/feedback",
    "/api/v1/annotations",
    "/api/v1/documents",
    "/v1/traces",
    "/v1/chat/completions",
]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    from config.asgi import application

    os.environ.pop("RATCHET_PROCESS", None)  # its mark for a process of its own, which this one is not
    with servers.serving(application) as address:
        yield address


@pytest.fixture
def http(web: str, transactional_db: None) -> Iterator[httpx.Client]:
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    with httpx.Client(base_url=web, trust_env=False, timeout=60) as client:
        yield client
    connection.settings_dict["CONN_MAX_AGE"] = age


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that is begun for a body or for a part of one."""
    found: list[str] = []
    rollover = tempfile.SpooledTemporaryFile.rollover

    def noted(file: Any) -> None:
        found.append("body")
        rollover(file)

    opened = uploadedfile.TemporaryUploadedFile.__init__

    def kept(self: Any, *args: Any, **kwargs: Any) -> None:
        found.append("upload")
        opened(self, *args, **kwargs)

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", noted)
    monkeypatch.setattr(uploadedfile.TemporaryUploadedFile, "__init__", kept)
    return found


def post(http: httpx.Client, path: str, **how: Any) -> httpx.Response:
    return http.post(path, files={"file": ("large.zip", b"x" * (3 * LARGE))}, **how)


@pytest.mark.parametrize("path", PAGES)
def test_of_strangers_pages_store_nothing(http: httpx.Client, stored: list[str], path: str) -> None:
    answer = post(http, path)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"/admin/login/?next={path}"
    assert stored == []


@pytest.mark.parametrize("path", PROGRAMS)
def test_of_strangers_programs_addresses_store_nothing(http: httpx.Client, stored: list[str], path: str) -> None:
    answer = post(http, path)
    assert answer.status_code == 401
    said = answer.json()
    assert "Authorization: Bearer" in (said["error"]["message"] if "error" in said else said["detail"])
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert stored == []


def test_a_body_that_does_not_say_how_large_it_is_ends_the_same(http: httpx.Client, stored: list[str]) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 100_000

    assert http.post(PAGES[0], content=pieces()).status_code == 302
    assert http.post("/api/v1/turns/batch", content=pieces()).status_code == 401
    assert stored == []


def test_a_client_that_asks_first_need_not_send_anything(http: httpx.Client, web: str) -> None:
    place = urlsplit(web)
    with socket.create_connection((place.hostname, place.port), timeout=20) as line:
        line.sendall(
            b"POST /admin/training/adapter/import/ HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % LARGE
        )
        found = b""
        while piece := line.recv(65536):
            found += piece
    assert found.startswith(b"HTTP/1.1 302 ")


def cookies(user: Any) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {name: morsel.value for name, morsel in client.cookies.items()}


def test_who_is_signed_in_and_uploads_nothing_anywhere_is_refused(http: httpx.Client, stored: list[str]) -> None:
    user = make_user("nora")
    make_assistant("bot", members={"annotator": [user], "reviewer": [user]})
    http.cookies.update(cookies(user))
    assert post(http, PAGES[0]).status_code == 403
    assert stored == []
    http.cookies.set("sessionid", "forged")
    assert post(http, PAGES[0]).status_code == 302
    assert stored == []


def test_an_admin_is_let_through_to_the_view(http: httpx.Client, stored: list[str]) -> None:
    user = make_user("ada")
    make_assistant("bot", members={"admin": [user]})
    given = cookies(user)
    http.cookies.update(given)
    answer = post(http, PAGES[0])
    assert answer.status_code == 403  # of the view's own check: a form without its token
    assert "older than your session" in answer.text
    assert "body" in stored
    user.is_active = False
    user.save()
    del stored[:]
    assert post(http, PAGES[0]).status_code == 302
    assert stored == []


def test_a_usable_key_is_let_through_and_others_are_not(http: httpx.Client, stored: list[str]) -> None:
    assistant = make_assistant("bot")
    key, secret = issue_key(assistant=assistant, name="frontend", scopes=["log"])
    turn = {"question": "Why?", "response": "Because.", "contexts": [{"text": "x" * 90_000}] * 2}
    body = json.dumps([{**turn, "id": f"t-{n}"} for n in range(20)]).encode()
    assert len(body) > doorman.FREE

    def send(secret: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        return http.post("/api/v1/turns/batch", content=body, headers=headers)

    answer = send(secret)
    assert (answer.status_code, answer.json()["created"]) == (207, 20)
    del stored[:]
    key.expires_at = timezone.now() - timedelta(days=1)
    key.save()
    assert send(secret).json()["detail"] == "This key has expired."
    assert send("rk_unknown").status_code == 401
    assert stored == []


def test_small_bodies_are_asked_about_by_their_views_only(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(doorman, "_ask", lambda scope: asked.append(scope["path"]))
    answer = http.post(
        "/api/v1/turns", content=b"x" * (doorman.FREE - 10), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 401
    assert asked == []

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from config import health
from config.middleware import ContentSecurityPolicyMiddleware
from tests.factories import make_assistant, make_user


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0.5)
        yield b"second"

    return StreamingHttpResponse(body(), content_type="text/event-stream")


urlpatterns = [path("v1/stream", stream)]


def test_the_process_tells_that_it_lives_without_a_database(client: Client) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b"ok")


@pytest.mark.django_db
def test_ready_when_the_database_answers_and_is_migrated(client: Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200, response.json()
    assert response.json()["ready"] is True


def test_not_ready_without_the_database_and_no_word_of_where_it_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_connection: object) -> None:
        raise OperationalError("connection to server at 10.0.0.7 failed")

    monkeypatch.setattr(health, "MigrationExecutor", fail)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert "10.0.0.7" not in response.content.decode()


@pytest.mark.django_db
def test_pages_forbid_inline_scripts_and_foreign_addresses(client: Client) -> None:
    response = client.get("/admin/login/")
    policy = response.headers["Content-Security-Policy"]
    assert "script-src 'self' 'unsafe-eval';" in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_answers_of_the_api_may_load_nothing(client: Client) -> None:
    assert client.get("/api/v1/nothing").headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_view_may_set_a_policy_of_its_own(rf: object) -> None:
    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Content-Security-Policy": "sandbox"})

    request = HttpRequest()
    request.path = "/admin/"
    response = ContentSecurityPolicyMiddleware(answer)(request)
    assert isinstance(response, HttpResponse)
    assert response.headers["Content-Security-Policy"] == "sandbox"


@pytest.mark.urls(__name__)
@pytest.mark.asyncio
async def test_a_streamed_answer_passes_every_middleware_piece_by_piece() -> None:
    response = await AsyncClient().get("/v1/stream")
    pieces = aiter(response)  # type: ignore[call-overload]
    assert await asyncio.wait_for(anext(pieces), 0.4) == b"first"
    assert await anext(pieces) == b"second"


def test_static_files_are_served_without_collecting_them(client: Client) -> None:
    response = client.get("/static/admin/css/base.css")
    assert response.status_code == 200


@pytest.mark.django_db
def test_the_admin_shows_its_sidebar_to_an_admin(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    response = client.get("/admin/")
    assert response.status_code == 200
    assert "People" in response.content.decode()


@pytest.mark.django_db
def test_the_sidebar_holds_nothing_that_a_person_may_not_see(client: Client) -> None:
    client.force_login(User.objects.create_user("bob", password="x", is_staff=True))
    response = client.get("/admin/")
    assert response.status_code == 200
    assert "/admin/auth/user/" not in response.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("https", [False, True])
def test_probes_are_answered_whatever_address_they_are_asked_at(client: Client, https: bool) -> None:
    for probe, kind in (("/healthz", "text/plain"), ("/readyz", "application/json")):
        with override_settings(ALLOWED_HOSTS=["ratchet.example"], SECURE_SSL_REDIRECT=https):
            response = client.get(probe, headers={"host": "10.0.0.7:8000"})
        assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
@override_settings(ALLOWED_HOSTS=["ratchet.example"])
async def test_probes_are_answered_on_the_event_loop_too() -> None:
    assert (await AsyncClient().get("/readyz")).status_code == 200
    assert (await AsyncClient().get("/admin/login/")).status_code == 400


@override_settings(ALLOWED_HOSTS=["ratchet.example"])
def test_a_foreign_host_name_is_refused(client: Client) -> None:
    assert client.get("/admin/login/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address",
    [
        "/admin/dashboards/playground/?assistant=%00",
        "/admin/training/retrievalcomparison/threshold/?assistant=%00",
        "/admin/capture/turn/?model=%00",
        "/admin/knowledge/document/?folder=%00",
    ],
)
def test_what_the_database_cannot_store_is_the_clients_mistake(client: Client, address: str) -> None:
    client.force_login(make_user(superuser=True))
    make_assistant()
    assert client.get(address).status_code in (200, 302, 400)
    assert client.get("/admin/dashboards/playground/?assistant=%00").status_code == 400

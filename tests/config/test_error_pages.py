"""People get a page with a way on, where programs get problem+json."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse

from config import errors
from serving.services import deployment_of
from tests.factories import make_assistant, make_user

HOME = 'href="/admin/"'


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


def test_an_address_without_a_page(client: Client, ada: User) -> None:
    client.force_login(ada)
    answer = client.get("/nothing/here")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.text
    assert HOME in answer.text


def test_who_may_not_see_a_page_reads_who_gives_roles(client: Client, ada: User) -> None:
    assistant = make_assistant("tarnwick", members={"annotator": [ada]})
    deployment_of(assistant)
    client.force_login(ada)
    answer = client.post(reverse("dashboards:roll-back", args=["tarnwick"]), {"reason": "x"})
    assert answer.status_code == 403
    assert "None of your roles opens it. An admin of the assistant gives roles" in answer.text.replace("&#x27;", "'")
    assert "tarnwick" not in answer.text  # which may be what this person is not to know
    assert HOME in answer.text


def test_logging_in_again_does_not_repeat_a_press(client: Client, ada: User) -> None:
    """A session ended, a button was pressed, the login led to the address of the button."""
    make_assistant("tarnwick", members={"admin": [ada]})
    client.force_login(ada)
    answer = client.get(reverse("dashboards:roll-back", args=["tarnwick"]))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert "Nothing was done" in answer.text
    assert HOME in answer.text


def test_a_form_of_another_session(ada: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    answer = client.post(reverse("admin:logout"))
    assert answer.status_code == 403
    assert "older than your session" in answer.text


def test_our_own_fault_asks_the_database_nothing() -> None:
    """No fixture of a database here: a question would fail the test."""
    request: Any = RequestFactory().get("/admin/")
    answer: Any = errors.server_error(request)
    assert answer.status_code == 500
    assert "Something went wrong on our side" in answer.content.decode()
    unread: HttpRequest = RequestFactory().get("/admin/")
    assert errors.bad_request(unread, ValueError("x")).status_code == 400

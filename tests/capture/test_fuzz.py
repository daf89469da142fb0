"""The whole API against its own description: generated requests, good and bad, on the real application and database.

A few examples of each operation run always, from a fixed seed; `RATCHET_FUZZ_EXAMPLES=500` runs longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from assistants.services import issue_key
from tests.capture.conftest import Cast
from tests.factories import make_feedback, make_turn

EXAMPLES = int(os.environ.get("RATCHET_FUZZ_EXAMPLES", "12"))
OPERATIONS = [
    ("POST", "/api/v1/turns"), ("GET", "/api/v1/turns"), ("POST", "/api/v1/turns/batch"),
    ("GET", "/api/v1/turns/{name}"), ("PATCH", "/api/v1/turns/{name}"), ("GET", "/api/v1/turns/export"),
    ("POST", "/api/v1/feedback"), ("POST", "/v1/traces"),
    ("POST", "/api/v1/annotations"), ("GET", "/api/v1/annotations"), ("PATCH", "/api/v1/turns/batch"),
    ("POST", "/api/v1/runs"), ("GET", "/api/v1/runs"), ("POST", "/api/v1/documents"), ("GET", "/api/v1/documents"),
]  # fmt: skip
# Not the chat, which answers through an asynchronous view and the engine: tests/serving has its bad input.


@pytest.fixture(scope="module")
def described(django_db_setup: None) -> Iterator[Any]:
    """The description, loaded from the application that it describes."""
    # A request would close the connection, and with it the test's transaction.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield schemathesis.openapi.from_wsgi("/api/v1/schema", get_wsgi_application())
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


_settings = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
_CONFORMANCE = (checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
def test_whatever_is_sent_the_answer_is_a_described_one(
    method: str, path: str, mode: GenerationMode, described: Any, cast: Cast, settings: Any
) -> None:
    settings.RATCHET_RATE_LIMIT = ""
    make_feedback(make_turn(cast.bot, client_id="web-4711", tags=["web"]))
    _, secret = issue_key(
        assistant=cast.bot, name="fuzz", scopes=["log", "read", "chat", "annotate", "documents", "train"]
    )
    # A plain view's errors have the shapes of its protocol, which is not ours to describe in detail.
    wanted = [checks.not_a_server_error, *(() if path == "/v1/traces" else _CONFORMANCE)]

    @_settings
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        for name in [name for name in case.headers if name.lower() == "host"]:
            del case.headers[name]  # another one is refused with 400 before any of this, by Django
        with transaction.atomic():  # every request sees the same turns, whatever the one before has posted
            answer = case.call(headers={"Authorization": f"Bearer {secret}"})
            case.validate_response(answer, checks=wanted)
            transaction.set_rollback(True)

    send()

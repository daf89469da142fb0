"""PostgreSQL goes away under users, for real: nobody is connected any more, and nobody gets in until it is back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import psycopg
import pytest
from django.db import connection
from psycopg import sql

from serving import spool
from tests.serving.conftest import QUESTION, Shop, turn_of, until


@contextmanager
def away() -> Iterator[None]:
    """The database of the tests refuses everybody, as a server does that is stopped. The block must not ask it."""
    name = connection.settings_dict["NAME"]
    place = {key: value for key, value in connection.get_connection_params().items() if key in ("host", "port", "user")}
    password = connection.settings_dict["PASSWORD"]
    connection.close()
    with psycopg.connect(**place, password=password, dbname="postgres", autocommit=True) as raw:
        raw.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        try:
            raw.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            raw.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))


def test_who_is_being_answered_gets_the_answer_and_its_turn_is_there_when_the_database_is_back(shop: Shop) -> None:
    body = {
        "model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], "stream": True,
        "max_tokens": 60,
    }  # fmt: skip
    header = {"Authorization": f"Bearer {shop.secret}"}
    with shop.http.stream("POST", "/v1/chat/completions", json=body, headers=header) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        said = [json.loads(next(lines).removeprefix("data: ")) for _ in range(3)]
        with away():
            rest = [line.removeprefix("data: ") for line in lines]
            assert rest[-1] == "[DONE]"
            said += [json.loads(line) for line in rest[:-1]]
            until(spool.has_waiting, "the turn was not spooled")

            with pytest.raises(openai.InternalServerError) as refused:
                shop.ask()
            assert refused.value.status_code == 503
            assert refused.value.response.headers["retry-after"]
            assert set(refused.value.response.json()["error"]) == {"message", "type", "param", "code"}
            assert "FATAL" not in refused.value.response.text
            posted = shop.http.post(
                "/api/v1/turns", json={"id": "t1", "question": "?", "response": "!"}, headers=header
            )
            assert posted.status_code == 503
            assert posted.headers["retry-after"]
            assert shop.http.get("/readyz").status_code == 503
            assert shop.http.get("/healthz").status_code == 200  # to start it again would not help
    assert not [event for event in said if "error" in event]
    shown = "".join(event["choices"][0]["delta"].get("content") or "" for event in said if event["choices"])

    later = shop.ask()  # without a start of anything
    until(lambda: not spool.has_waiting(), "what was spooled is not taken in")
    assert turn_of(said[0]["id"]).response == shown
    assert turn_of_stored(later.id)


def turn_of_stored(name: str) -> bool:
    from capture.models import Turn

    return Turn.objects.filter(client_id=name).exists()

"""The pool of web processes hands out no connection that the server has ended, and asks about no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, connections

from config.pooled.base import DatabaseWrapper, check

pytestmark = pytest.mark.django_db


@pytest.fixture
def wrapper() -> Iterator[DatabaseWrapper]:
    options = {**connection.settings_dict["OPTIONS"], "pool": {"min_size": 1, "max_size": 1, "timeout": 20}}
    settings = {**connection.settings_dict, "OPTIONS": options, "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True}
    connections["pooled"] = made = DatabaseWrapper(settings, alias="pooled")
    yield made
    made.close()
    made.close_pool()
    del connections["pooled"]


def backend(wrapper: DatabaseWrapper) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def end(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)


def test_the_next_request_gets_the_same_connection_without_a_question(
    wrapper: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    execute = psycopg.Connection.execute

    def noted(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        sent.append(query)
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "execute", noted)
    first = backend(wrapper)
    wrapper.close()
    assert backend(wrapper) == first
    assert sent == []


def test_a_connection_that_the_server_has_ended_is_not_handed_out(wrapper: DatabaseWrapper) -> None:
    first = backend(wrapper)
    wrapper.close()
    end(first)
    assert backend(wrapper) != first


def test_what_can_be_read_is_no_end_by_itself(wrapper: DatabaseWrapper) -> None:
    first = backend(wrapper)
    raw: Any = wrapper.connection
    raw.execute("LISTEN something")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [first])
    check(raw)
    raw.close()
    with pytest.raises(psycopg.OperationalError):
        check(raw)

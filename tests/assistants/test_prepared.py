"""Statements that PostgreSQL plans once per connection, and nothing else that it remembers."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from django.db import DatabaseError, ProgrammingError, connection
from django.test.utils import CaptureQueriesContext

from assistants.auth import authenticate_key
from assistants.models import ApiKey
from assistants.prepared import Wire, run_prepared, wire_bytes, wire_texts
from assistants.services import issue_key
from tests.factories import make_assistant

pytestmark = pytest.mark.django_db


def remembered() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def test_a_statement_is_prepared_once_and_nothing_else_is() -> None:
    sql = "SELECT %(n)s::int + 1 AS one_more"
    assert [run_prepared(sql, {"n": n}) for n in (1, 2)] == [[(2,)], [(3,)]]
    ApiKey.objects.filter(name="x").exists()
    assert [statement for statement in remembered() if "one_more" in statement] == ["SELECT $1::int + 1 AS one_more"]
    assert not [statement for statement in remembered() if "pg_prepared" in statement or "EXISTS" in statement]


def test_what_may_not_be_planned_once_is_not_remembered() -> None:
    assert run_prepared("SELECT %(n)s::int AS afresh", {"n": 1}, plan_once=False) == [(1,)]
    assert not [statement for statement in remembered() if "afresh" in statement]


def test_no_text_of_an_ordinary_statement_is_kept() -> None:
    run_prepared("SELECT %(n)s::int AS kept", {"n": 1})
    raw: Any = connection.connection
    assert raw.prepare_threshold is None
    ApiKey.objects.filter(name="Erika Mustermann").exists()
    assert not [key for key in raw._prepared._counts if b"Mustermann" in key[0]]
    before = len([statement for statement in remembered() if "AS kept" in statement])
    run_prepared("SELECT %(n)s::int AS kept", {"n": 2})
    assert before == len([statement for statement in remembered() if "AS kept" in statement]) == 1


def test_it_is_counted_like_every_other_statement() -> None:
    with CaptureQueriesContext(connection) as seen:
        run_prepared("SELECT %(n)s::int", {"n": 1})
    assert [query["sql"] for query in seen.captured_queries] == ["SELECT %(n)s::int"]


@pytest.mark.django_db(transaction=True)
def test_what_goes_wrong_is_an_error_of_django() -> None:
    with pytest.raises(ProgrammingError):
        run_prepared("SELECT %(n)s::int FROM there_is_no_such_table", {"n": 1})
    assert run_prepared("SELECT %(n)s::int", {"n": 5}) == [(5,)]


def test_the_key_of_a_request_is_found_by_one() -> None:
    key, secret = issue_key(assistant=make_assistant(), name="web", scopes=["log", "read"])
    found = authenticate_key(f"Bearer {secret}")
    whole: Any = ApiKey.objects.select_related("assistant").get(pk=key.pk)
    for one, other in ((found, whole), (found.assistant, whole.assistant)):
        told = {field.attname: getattr(one, field.attname) for field in one._meta.concrete_fields}
        told.pop("last_used_at", None)  # noted after it was read
        assert told == {name: getattr(other, name) for name in told}
    assert [statement for statement in remembered() if "assistants_apikey" in statement and "$1" in statement]


def test_a_value_may_go_as_its_type_reads_it() -> None:
    vector = struct.pack(">HH", 3, 0) + np.array([1, -0.5, 0.25], dtype=">f2").tobytes()
    assert run_prepared("SELECT (%(v)s::halfvec)::text", {"v": Wire(vector)}) == [("[1,-0.5,0.25]",)]
    with pytest.raises(DatabaseError):
        run_prepared("SELECT (%(v)s::halfvec)::text", {"v": Wire(vector[:5])})


def test_lists_arrive_as_they_are() -> None:
    texts, octets = ["", "a", "Grüße \U0001f600", '{},"\\ NULL', "x" * 70_000], [b"", b"\x00\xff", b"y" * 70_000]
    sql = "SELECT %(texts)s::text[], %(octets)s::bytea[]"
    assert run_prepared(sql, {"texts": wire_texts(texts), "octets": wire_bytes(octets)}) == [(texts, octets)]
    assert run_prepared(sql, {"texts": wire_texts([]), "octets": wire_bytes([])}) == [([], [])]

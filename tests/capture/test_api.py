"""The log API: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from assistants.services import issue_key, revoke_key
from capture import receiving, room
from capture.models import Quarantine, Receipt
from capture.sealing import content_of
from tests.capture.conftest import Call, Cast, turn_item
from tests.factories import make_feedback, make_turn


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    return body


# --- Taking --------------------------------------------------------------------------------------


def test_a_turn_is_created_once_and_its_repeat_changes_nothing(api: Call, cast: Cast) -> None:
    first = api("post", "turns", turn_item())
    assert (first.status_code, first.json()) == (201, {"id": "t-1", "status": "created"})
    again = api("post", "turns", turn_item())
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    assert Quarantine.objects.count() == Receipt.objects.count() == 1


def test_the_same_content_spelled_differently_is_a_duplicate(api: Call) -> None:
    item = turn_item()
    api("post", "turns", item)
    respelled = dict(reversed(item.items())) | {"time": "2026-03-01T11:00:00+01:00", "adapter": ""}
    assert api("post", "turns", respelled).json()["status"] == "duplicate"


def test_the_same_id_with_other_content_is_a_conflict(api: Call) -> None:
    api("post", "turns", turn_item())
    body = problem(api("post", "turns", turn_item(response="Something else.")), 409)
    assert body["errors"][0]["field"] == "id"


def test_two_assistants_may_use_the_same_id(api: Call, cast: Cast) -> None:
    assert api("post", "turns", turn_item()).status_code == 201
    assert api("post", "turns", turn_item(response="Other."), secret=cast.other_secret).status_code == 201


def test_nothing_readable_is_stored_before_scrubbing(api: Call, cast: Cast) -> None:
    api("post", "turns", turn_item(question="I am Zebulon Quark", id="quark@example.test"))
    row = Quarantine.objects.select_related("receipt").get()
    assert b"Zebulon" not in bytes(row.payload)
    assert "quark" not in row.receipt.client_id
    envelope = json.loads(content_of(row.payload))
    assert envelope["item"]["question"] == "I am Zebulon Quark"
    assert envelope["api_key"] == cast.key.pk


def test_a_batch_answers_item_by_item_and_a_bad_item_stops_nobody(api: Call) -> None:
    items = [turn_item(id="a"), turn_item(id="b", question=""), turn_item(id="a"), turn_item(id="a", response="x"), 7,
             turn_item(id="c", surprise=1)]  # fmt: skip
    response = api("post", "turns/batch", items)
    assert response.status_code == 207
    body = response.json()
    assert [row["status"] for row in body["results"]] == [
        "created", "invalid", "duplicate", "conflict", "invalid", "invalid",
    ]  # fmt: skip
    assert (body["created"], body["invalid"]) == (1, 3)
    assert body["results"][1]["errors"][0]["field"] == "question"
    assert body["results"][1]["errors"][0]["item"] == 1
    assert body["results"][5]["errors"][0]["field"] == "surprise"
    assert Quarantine.objects.count() == 1


def test_a_batch_may_be_an_object_and_keeps_the_order_of_arrival(api: Call) -> None:
    items = [turn_item(id=f"{n:03d}"[::-1]) for n in range(40)]
    assert api("post", "turns/batch", {"turns": items}).json()["created"] == 40
    stored = Quarantine.objects.order_by("pk").values_list("receipt__client_id", flat=True)
    assert list(stored) == [item["id"] for item in items]


def test_the_scrub_job_is_queued_once_for_all_that_waits(api: Call) -> None:
    from django_q.models import OrmQ, Schedule

    for n in range(3):
        api("post", "turns", turn_item(id=f"t-{n}"))
    assert OrmQ.objects.count() == 1
    assert Schedule.objects.get().func == "capture.jobs.scrub_waiting"


# --- Limits and bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": None}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"id": "a\x00b"}, "id"),
        ({"id": 12}, "id"),
        ({"question": "  "}, "question"),
        ({"question": "x" * 20_001}, "question"),
        ({"response": ""}, "response"),
        ({"history": [{"role": "robot", "content": "x"}]}, "history.0.role"),
        ({"contexts": [{"text": "a", "rank": -1}]}, "contexts.0.rank"),
        ({"contexts": [{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]}, "contexts"),
        ({"contexts": [{"text": "a", "rank": 1}, {"text": "b"}]}, "contexts"),
        ({"contexts": [{"text": "a"}] * 51}, "contexts"),
        ({"contexts": [{"text": "a", "score": "high"}]}, "contexts.0.score"),
        ({"time": "1970-01-01T00:00:00Z"}, "time"),
        ({"time": "2100-01-01T00:00:00Z"}, "time"),
        ({"time": "yesterday"}, "time"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"completion_tokens": 2**40}, "completion_tokens"),
        ({"metadata": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}}}, "metadata"),
        ({"metadata": {"a": "x" * 17_000}}, "metadata"),
        ({"metadata": {"mail@example.test": 1}}, "metadata"),
        ({"metadata": [1]}, "metadata"),
        ({"tags": ["x" * 61]}, "tags.0"),
        ({"model": "mail@example.test"}, "model"),
    ],
)
def test_a_bad_field_is_named(api: Call, change: dict[str, Any], field: str) -> None:
    body = problem(api("post", "turns", {**turn_item(), **change}), 422)
    assert body["errors"][0]["field"] == field
    assert body["detail"].startswith(field)
    assert Quarantine.objects.count() == 0


def test_an_error_never_repeats_the_value(api: Call) -> None:
    response = api("post", "turns", turn_item(time="Zebulon", history=[{"role": "Zebulon", "content": 3}]))
    assert b"Zebulon" not in response.content
    problem(response, 422)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1, 2", b"nonsense", b'{"id": NaN}', b'{"a": 1e999}', b"\xff\xfe", b'{"id": ' + b"9" * 5000 + b"}",
        b"[" * 100_000, b'{"a":' * 100_000, b"null", b'"text"', b"[]", b"{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["turns", "turns/batch", "feedback"])
def test_malformed_bodies_get_a_422(api: Call, path: str, body: bytes) -> None:
    problem(api("post", path, body), 422)


def test_bytes_that_cannot_be_stored_are_marked_in_text(api: Call) -> None:
    text = json.dumps(turn_item()).replace("What does it", "What\\u0000 does \\ud800 it").encode()
    assert api("post", "turns", text).status_code == 201
    item = json.loads(content_of(Quarantine.objects.get().payload))["item"]
    assert item["question"].startswith("What\ufffd does \ufffd it")


def test_half_a_surrogate_pair_is_the_affair_of_one_item(api: Call) -> None:
    body = b'[{"id": "\\ud800", "question": "q", "response": "r"}, {"id": "b", "question": "q", "response": "r"}]'
    rows = api("post", "turns/batch", body).json()["results"]
    assert [row["status"] for row in rows] == ["invalid", "created"]


def test_limits_of_a_batch(api: Call) -> None:
    assert "1000" in problem(api("post", "turns/batch", [1] * 1001), 413)["detail"]
    assert "8 MB" in problem(api("post", "turns/batch", b" " * (8 * 2**20 + 1)), 413)["detail"]
    problem(api("post", "turns", b"a=1", content_type="text/plain"), 415)


def test_a_key_that_runs_wild_is_told_to_wait(api: Call, settings: Any) -> None:
    settings.RATCHET_RATE_LIMIT = "2/min"
    assert [api("post", "turns", turn_item(id=f"{n}")).status_code for n in range(2)] == [201, 201]
    response = api("post", "turns", turn_item(id="3"))
    problem(response, 429)
    assert 25 <= int(response.headers["Retry-After"]) <= 30


# --- Keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "rk_nobody", "x" * 300, "ünïcode"])
def test_without_a_known_key_nobody_gets_in(api: Call, header: str) -> None:
    response = api("post", "turns", turn_item(), secret=header)
    problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_revoked_expired_and_scopeless_keys(api: Call, cast: Cast) -> None:
    key, secret = issue_key(assistant=cast.bot, name="short", scopes=["log"], expires_at=timezone.now() + timedelta(1))
    assert api("post", "turns", turn_item(), secret=secret).status_code == 201
    assert "read" in problem(api("get", "turns", secret=secret), 403)["detail"]
    type(key).objects.filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "expired" in problem(api("post", "turns", turn_item(), secret=secret), 401)["detail"]
    revoke_key(key=key, actor=cast.alice)
    assert "revoked" in problem(api("post", "turns", turn_item(), secret=secret), 401)["detail"]


def test_a_write_costs_two_statements(api: Call, monkeypatch: Any, django_assert_num_queries: Any) -> None:
    api("post", "turns", turn_item(id="warm"))
    monkeypatch.setattr(receiving, "_QUICK_SECONDS", 1000)
    with django_assert_num_queries(2):  # the key, the insert
        api("post", "turns/batch", [turn_item(id=f"t-{n}") for n in range(50)])
    monkeypatch.setattr(receiving, "_QUICK_SECONDS", 0)
    with django_assert_num_queries(3):  # is there still work before mine
        api("post", "turns", turn_item(id="slow"))


def test_a_plan_is_kept_only_where_much_waits_and_reads_no_table(api: Call, monkeypatch: Any) -> None:
    def kept() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%capture_quarantine%'")
            return [row[0] for row in cursor.fetchall()]

    monkeypatch.setattr(receiving, "_QUICK_SECONDS", 0)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE capture_receipt, capture_quarantine CASCADE")
        cursor.execute("ANALYZE capture_receipt, capture_quarantine")  # as autovacuum does that sees them empty
    connection.connection._prepared.clear()
    room.forget()
    api("post", "turns/batch", [turn_item(id=f"t-{n}") for n in range(900)])
    api("post", "turns", turn_item(id="few"))
    assert kept() == []
    monkeypatch.setattr(receiving, "PLANNED_FROM", 500)
    api("post", "turns", turn_item(id="much"))
    (statement,) = kept()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Index" in plan
    assert "Seq Scan on capture_" not in plan, plan


def test_work_that_was_seen_counts_only_where_the_insert_was_quick(api: Call, monkeypatch: Any) -> None:
    queued: list[int] = []
    monkeypatch.setattr("capture.jobs.enqueue_scrub", lambda: queued.append(1))
    api("post", "turns", turn_item(id="first"))
    assert queued == [1]
    monkeypatch.setattr(receiving, "_QUICK_SECONDS", 1000)
    api("post", "turns", turn_item(id="second"))
    assert queued == [1]  # the first one waits, so somebody has queued
    monkeypatch.setattr(receiving, "_QUICK_SECONDS", 0)
    api("post", "turns", turn_item(id="third"))
    assert queued == [1]  # looked again: it still waits
    run = receiving.run_prepared

    def scrubbed_meanwhile(statement: Any, values: Any, **how: Any) -> Any:
        rows = run(statement, values, **how)
        if "INSERT" in statement:  # the worker claims all that waits and ends, before this is committed
            Quarantine.objects.exclude(pk__in=[pk for _, pk, _ in rows]).update(claimed_until=timezone.now())
        return rows

    monkeypatch.setattr(receiving, "run_prepared", scrubbed_meanwhile)
    api("post", "turns", turn_item(id="fourth"))
    assert queued == [1, 1]


# --- Feedback --------------------------------------------------------------------------------------------


def test_feedback_waits_behind_its_turn(api: Call) -> None:
    api("post", "turns", turn_item())
    response = api("post", "feedback", {"turn": "t-1", "kind": "thumb", "value": -1})
    assert response.status_code == 201
    assert api("post", "feedback", {"turn": "t-1", "kind": "thumb", "value": -1}).status_code == 200
    turn, feedback = Quarantine.objects.order_by("pk")
    assert feedback.kind == "feedback"
    assert feedback.conversation_key == turn.conversation_key


def test_feedback_by_our_id_and_in_a_batch(api: Call, cast: Cast) -> None:
    turn = make_turn(cast.bot)
    rows = api("post", "feedback", [
        {"turn": str(turn.pk), "kind": "rating", "value": 4}, {"turn": turn.client_id, "kind": "comment", "text": "ok"},
        {"turn": "nobody", "kind": "escalation"}, {"turn": turn.client_id, "kind": "thumb", "value": 5},
        {"turn": turn.client_id, "kind": "comment"},
    ]).json()["results"]  # fmt: skip
    assert [row["status"] for row in rows] == ["created", "created", "invalid", "invalid", "invalid"]
    assert [row["errors"][0]["field"] for row in rows[2:]] == ["turn", "value", "text"]


def test_feedback_on_somebody_elses_turn_is_refused(api: Call, cast: Cast) -> None:
    turn = make_turn(cast.bot)
    body = {"turn": str(turn.pk), "kind": "thumb", "value": 1}
    problem(api("post", "feedback", body, secret=cast.other_secret), 404)


# --- Reading -----------------------------------------------------------------------------------------------


def test_turns_are_listed_page_by_page_newest_first(api: Call, cast: Cast) -> None:
    now = timezone.now()
    turns = [make_turn(cast.bot, question=f"Question {n}?", asked_at=now - timedelta(minutes=n // 2)) for n in range(5)]
    make_turn(cast.other)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = api("get", "turns", query).json()
        seen += [turn["id"] for turn in page["turns"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert sorted(seen) == sorted(str(turn.pk) for turn in turns)
    assert seen[-1] == str(turns[4].pk)


def test_turns_are_filtered(api: Call, cast: Cast) -> None:
    plain = make_turn(cast.bot)
    other = make_turn(cast.bot, question="Boiler pressure?", adapter="bot--2", declined=True, tags=["web"])
    make_feedback(other, value=-1)
    queries: list[dict[str, Any]] = [
        {"adapter": "bot--2"}, {"declined": "true"}, {"feedback": "down"}, {"feedback": "any"}, {"q": "boiler"},
        {"tag": "web"}, {"conversation": other.conversation.external_id},
    ]  # fmt: skip
    for query in queries:
        found = [turn["id"] for turn in api("get", "turns", query).json()["turns"]]
        assert found == [str(other.pk)], query
    assert [t["id"] for t in api("get", "turns", {"feedback": "none"}).json()["turns"]] == [str(plain.pk)]
    assert api("get", "turns", {"until": "2001-01-01"}).json()["turns"] == []


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "x"}, {"cursor": "%%"}, {"cursor": "YWJj"}, {"since": "soon"}, {"declined": "maybe"},
     {"surprise": "1"}, {"q": "a\x00"}, {"since": "2026-99-99"}],
)  # fmt: skip
def test_bad_parameters_are_named(api: Call, query: dict[str, str]) -> None:
    assert problem(api("get", "turns", query), 422)["errors"][0]["field"] == next(iter(query))


def test_a_list_costs_the_same_however_long(api: Call, cast: Cast, django_assert_num_queries: Any) -> None:
    for _ in range(2):
        make_feedback(make_turn(cast.bot))
    api("get", "turns")
    with django_assert_num_queries(5):
        api("get", "turns")
    for _ in range(8):
        make_feedback(make_turn(cast.bot))
    with django_assert_num_queries(5):
        assert len(api("get", "turns").json()["turns"]) == 10


def test_one_turn_by_either_id_and_only_ones_own(api: Call, cast: Cast) -> None:
    turn = make_turn(cast.bot, client_id="mine")
    by_ours, by_client = api("get", f"turns/{turn.pk}").json(), api("get", "turns/mine").json()
    assert by_ours == by_client
    assert [context["rank"] for context in by_ours["contexts"]] == [1, 2, 3]
    problem(api("get", f"turns/{turn.pk}", secret=cast.other_secret), 404)
    problem(api("get", "turns/nobody"), 404)
    api("post", "turns", turn_item())
    assert "not been scrubbed" in problem(api("get", "turns/t-1"), 404)["detail"]


def test_every_operation_of_the_schema_has_a_name_of_its_own() -> None:
    from drf_spectacular.generators import SchemaGenerator

    paths = SchemaGenerator().get_schema(public=True)["paths"]
    names = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert {"turns_list", "turns_create", "turns_retrieve"} <= set(names)
    assert len(names) == len(set(names))

"""Turns out: through the API, the page and the command; whole, in constant memory, noted, and stoppable."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from assistants.models import AuditEvent
from assistants.services import issue_key
from capture import export_guard, exporting
from capture.export_guard import ExportBlocked
from capture.exporting import Export, open_export, pieces_of
from capture.models import Turn
from capture.parquet import arrow_schema
from capture.reading import readable, turn_json
from capture.shapes import TurnShape
from tests import servers
from tests.capture.conftest import Call, Cast, streamed_bytes
from tests.factories import make_assistant, make_conversation, make_feedback, make_turn


@pytest.fixture
def logged(cast: Cast) -> list[Turn]:
    """Three turns with all that a turn can have, newest last."""
    turns = [
        make_turn(
            cast.bot, client_id=f"t{n}", asked_at=f"2026-03-0{n}T10:00:00Z", tags=["web", "ü"],
            metadata={"deep": {"n": [n]}}, history=[{"role": "user", "content": "Hi"}], latency_ms=n,
            declined=n == 2, outcome="resolved",
            pii=[{"field": "question", "placeholder": "[NAME_1]", "type": "NAME", "score": 0.9}],
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    make_feedback(turns[0], value=-1)
    make_feedback(turns[0], kind="comment", value=None, text='Quote " and\nline')
    make_turn(cast.other, client_id="theirs")
    return [Turn.objects.get(pk=turn.pk) for turn in turns]


def export(api: Call, status: int = 200, **query: Any) -> bytes:
    answer = api("get", "turns/export", query)
    assert answer.status_code == status, getattr(answer, "content", answer)
    return streamed_bytes(answer) if status == 200 else answer.content


def rows(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.decode().splitlines()]


def test_an_export_holds_what_the_list_holds(api: Call, logged: list[Turn]) -> None:
    listed = api("get", "turns").json()["turns"]
    assert [turn["client_id"] for turn in listed] == ["t3", "t2", "t1"]
    assert rows(export(api)) == listed
    assert rows(export(api, declined="true")) == [listed[1]]
    assert rows(export(api, limit=2)) == listed[:2]
    assert rows(export(api, since="2027-01-01")) == []


def test_answers_have_the_fields_that_are_described(logged: list[Turn]) -> None:
    for turn in readable(Turn.objects.all()):
        TurnShape.model_validate(turn_json(turn))


def test_parquet_holds_the_same(api: Call, logged: list[Turn]) -> None:
    table = pq.read_table(io.BytesIO(export(api, format="parquet")))
    assert table.schema.equals(arrow_schema())
    lines = rows(export(api))
    for row, line in zip(table.to_pylist(), lines, strict=True):
        assert {**row, "masked": json.loads(row["masked"]), "metadata": json.loads(row["metadata"])}["masked"] == line[
            "masked"
        ]
        assert json.loads(row["metadata"]) == line["metadata"]
        assert row["time"].isoformat() == line["time"]
        assert [c["text"] for c in row["contexts"]] == [c["text"] for c in line["contexts"]]
        assert row["citations"] == line["citations"]
        assert [f["value"] for f in row["feedback"]] == [f["value"] for f in line["feedback"]]
        same = set(line) - {"masked", "metadata", "time", "contexts", "feedback"}
        assert {name: row[name] for name in same} == {name: line[name] for name in same}
    empty = pq.read_table(io.BytesIO(export(api, format="parquet", tag="nothing")))
    assert (empty.num_rows, empty.schema) == (0, table.schema)


def test_parquet_comes_in_groups_that_fit_the_memory(api: Call, logged: list[Turn], monkeypatch: Any) -> None:
    monkeypatch.setattr("capture.parquet.GROUP_CHARACTERS", 100)
    body = export(api, format="parquet")
    assert pq.ParquetFile(io.BytesIO(body)).num_row_groups == 3


def test_who_exported_what_is_noted_without_the_words(api: Call, cast: Cast, logged: list[Turn]) -> None:
    export(api, q="plan", tag="web")
    started, ended = AuditEvent.objects.filter(action__startswith="turns.export").order_by("pk")
    assert (started.action, ended.action, ended.target) == ("turns.export_started", "turns.exported", "3 turns")
    assert ended.assistant == cast.bot
    assert ended.details == {
        "format": "jsonl", "q": "given, 4 characters", "tag": ["web"], "key": str(cast.key), "count": 3,
        "ended": "complete",
    }  # fmt: skip


def test_only_a_reader_exports_and_only_their_own(api: Call, cast: Cast, logged: list[Turn]) -> None:
    _, logger = issue_key(assistant=cast.bot, name="logs only", scopes=["log", "chat"])
    assert api("get", "turns/export", secret=logger).status_code == 403
    assert api("get", "turns/export", secret="").status_code == 401
    assert not AuditEvent.objects.filter(action__startswith="turns.export").exists()
    theirs = streamed_bytes(api("get", "turns/export", secret=cast.other_secret))
    assert [row["client_id"] for row in rows(theirs)] == ["theirs"]


def test_an_export_counts_for_the_rate(api: Call, logged: list[Turn], settings: Any) -> None:
    settings.RATCHET_RATE_LIMIT = "2/hour"
    export(api)
    export(api)
    export(api, status=429)


@pytest.mark.parametrize("query", [{"format": "csv"}, {"cursor": "x"}, {"limit": "0"}, {"like": "x", "limit": "201"}])
def test_bad_parameters_are_named(api: Call, logged: list[Turn], query: dict[str, str]) -> None:
    assert json.loads(export(api, status=422, **query))["errors"]


def test_what_a_client_accepts_does_not_matter(api: Call, logged: list[Turn]) -> None:
    for accepted in ("application/x-ndjson", "text/html", "nonsense"):
        answer = api("get", "turns/export", HTTP_ACCEPT=accepted)
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert len(rows(streamed_bytes(answer))) == 3


def test_without_pyarrow_the_answer_says_so(api: Call, logged: list[Turn], monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "pyarrow" in json.loads(export(api, status=501, format="parquet"))["detail"]
    assert len(rows(export(api))) == 3  # and the place among the running exports was given back


def test_too_many_at_once_are_told_to_wait(api: Call, cast: Cast, logged: list[Turn]) -> None:
    held = [
        open_export(Export(turns=Turn.objects.all(), format="jsonl", api_key=cast.key))
        for _ in range(exporting.AT_ONCE)
    ]
    assert json.loads(export(api, status=429))["status"] == 429
    for pieces in held:
        pieces.close()  # type: ignore[attr-defined]
    assert len(rows(export(api))) == 3


@pytest.fixture
def guarded() -> Iterator[list[str]]:
    """Turns whose client id is in the list do not leave."""
    secret: list[str] = []

    def guard(_assistant: Any, records: Any) -> None:
        for record in records:
            if record["client_id"] in secret:
                raise ExportBlocked("question: a canary", turn=record["id"])

    export_guard.register(guard)
    yield secret
    export_guard.unregister(guard)


def test_a_guard_stops_an_export_before_anything_leaves(
    api: Call, logged: list[Turn], guarded: list[str], tmp_path: Path
) -> None:
    guarded.append("t2")
    body = json.loads(export(api, status=409))
    assert (body["title"], body["detail"]) == ("Export blocked", "question: a canary")
    event = AuditEvent.objects.get(action="turns.exported")
    assert (event.details["count"], event.details["ended"]) == (0, "blocked: question: a canary")
    with pytest.raises(CommandError, match="blocked"):
        call_command("export_turns", str(tmp_path / "out.jsonl"), assistant="bot")
    assert list(tmp_path.iterdir()) == []
    guarded.clear()
    assert len(rows(export(api))) == 3


def test_a_guard_stops_an_export_in_the_middle(
    cast: Cast, logged: list[Turn], guarded: list[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(exporting, "BATCH", 1)
    guarded.append("t2")
    pieces = pieces_of(Export(turns=Turn.objects.of(cast.bot), format="jsonl", api_key=cast.key))
    assert [row["client_id"] for row in rows(next(pieces))] == ["t3"]
    with pytest.raises(ExportBlocked):
        next(pieces)
    assert AuditEvent.objects.get(action="turns.exported").details["count"] == 1


def test_pages_of_ids_join_without_a_gap(cast: Cast, logged: list[Turn], monkeypatch: Any) -> None:
    monkeypatch.setattr(exporting, "ID_PAGE", 2)
    monkeypatch.setattr(exporting, "BATCH", 1)
    for limit, expected in ((None, ["t3", "t2", "t1"]), (2, ["t3", "t2"]), (3, ["t3", "t2", "t1"]), (1, ["t3"])):
        pieces = pieces_of(Export(turns=Turn.objects.of(cast.bot), format="jsonl", api_key=cast.key, limit=limit))
        assert [row["client_id"] for row in rows(b"".join(pieces))] == expected


# --- Command and page -----------------------------------------------------------------------------------


def test_the_command_writes_a_file_for_its_owner_alone(logged: list[Turn], tmp_path: Path) -> None:
    target = tmp_path / "turns.parquet"
    call_command("export_turns", str(target), assistant="bot", tag=["web"], since="2026-03-02")
    assert pq.read_table(target).column("client_id").to_pylist() == ["t3", "t2"]
    assert target.stat().st_mode & 0o077 == 0
    with pytest.raises(CommandError, match="--force"):
        call_command("export_turns", str(target), assistant="bot")
    call_command("export_turns", str(target), assistant="bot", format="jsonl", force=True)
    assert len(rows(target.read_bytes())) == 3
    event = AuditEvent.objects.filter(action="turns.exported").latest("pk")
    assert (event.actor_name, event.details["command"]) == ("system", "export_turns")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"assistant": "nobody"}, "no such assistant"), ({"since": "soon"}, "since"), ({"limit": 0}, "limit")],
)
def test_the_command_refuses_what_it_cannot_do(logged: list[Turn], tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("export_turns", str(tmp_path / "x.jsonl"), **{"assistant": "bot", **changes})


def test_the_command_replaces_no_folder(logged: list[Turn], tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is a folder"):
        call_command("export_turns", str(tmp_path), assistant="bot", force=True)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_the_command_that_goes_is_told_of_in_one_sentence(
    logged: list[Turn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `export_turns - | head -1` does."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(CommandError, match="it is not whole"):
            call_command("export_turns", "-", assistant="bot")
        monkeypatch.undo()


def test_the_page_exports_parquet_and_only_ones_own(client: Client, cast: Cast, logged: list[Turn]) -> None:
    client.force_login(cast.dana)
    body = {"action": "export_parquet", "_selected_action": [str(turn.pk) for turn in Turn.objects.all()]}
    table = pq.read_table(io.BytesIO(streamed_bytes(client.post(reverse("admin:capture_turn_changelist"), body))))
    assert table.column("client_id").to_pylist() == ["t3", "t2", "t1"]
    assert AuditEvent.objects.get(action="turns.exported").actor == cast.dana


# --- Over HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
def large(transactional_db: None) -> Iterator[tuple[str, str]]:
    """The address of a real server, and a key of an assistant with 2,000 turns of 20 kB each."""
    from config.asgi import application

    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], 0
    assistant = make_assistant()
    talk = make_conversation(assistant)
    Turn.objects.bulk_create(
        Turn(assistant=assistant, conversation=talk, client_id=str(n), question="?", response="answer " * 3_000,
             policy_digest="t", asked_at="2026-01-01T00:00:00Z")
        for n in range(2_000)
    )  # fmt: skip
    _, secret = issue_key(assistant=assistant, name="reader", scopes=["read"])
    with servers.serving(application) as url:
        yield url, secret
    connection.settings_dict["CONN_MAX_AGE"] = age


def test_a_stream_starts_early_and_ends_when_the_reader_goes(large: tuple[str, str]) -> None:
    url, secret = large
    header = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=url, headers=header, trust_env=False, timeout=60) as http:
        with http.stream("GET", "/api/v1/turns/export") as answer:
            first = next(answer.iter_lines())
            assert json.loads(first)["client_id"]
            threads = threading.active_count()
        # The reader has gone after one line of forty megabytes.
        deadline = time.monotonic() + 20
        while not (event := AuditEvent.objects.filter(action="turns.exported").first()):
            assert time.monotonic() < deadline, "the export goes on for nobody"
            time.sleep(0.05)
        assert event.details["ended"] == "broken off"
        assert event.details["count"] < 2_000
        with http.stream("GET", "/api/v1/turns/export") as answer:
            seen = {json.loads(line)["client_id"] for line in answer.iter_lines()}
        assert len(seen) == 2_000
        assert threading.active_count() <= threads + 2


def test_a_reader_that_stops_reading_gives_its_place_back(
    large: tuple[str, str], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    url, secret = large
    settings.RATCHET_SEND_TIMEOUT = 1
    monkeypatch.setattr(exporting, "_running", threading.BoundedSemaphore(1))
    header = {"Authorization": f"Bearer {secret}"}
    with socket.socket() as stuck, httpx.Client(base_url=url, headers=header, trust_env=False, timeout=60) as http:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", httpx.URL(url).port))
        head = f"GET /api/v1/turns/export HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n\r\n"
        stuck.sendall(head.encode())
        assert stuck.recv(15) == b"HTTP/1.1 200 OK"
        assert http.get("/api/v1/turns/export").status_code == 429, "the place is taken"
        deadline = time.monotonic() + 120
        while not (event := AuditEvent.objects.filter(action="turns.exported").first()):
            assert time.monotonic() < deadline, "it waits for ever"
            time.sleep(0.05)
        assert event.details["ended"] == "broken off"
        assert event.details["count"] < 2_000
        assert len(http.get("/api/v1/turns/export?limit=3").text.splitlines()) == 3

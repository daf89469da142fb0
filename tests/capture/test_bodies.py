"""Bodies of the log API: gzip and lines of JSON, whole and broken."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from capture.bodies import MAX_BYTES, MAX_ITEMS
from capture.models import Quarantine
from tests.capture.conftest import Call, turn_item
from tests.capture.test_api import problem

LINES = "application/x-ndjson"
PACKED = {"HTTP_CONTENT_ENCODING": "gzip"}


def post(api: Call, path: str, body: bytes, kind: str = "application/json", **extra: Any) -> Any:
    return api("post", path, body, content_type=kind, **extra)


def lines(*items: Any) -> bytes:
    return b"\n".join(json.dumps(item).encode() for item in items)


# --- Gzip -----------------------------------------------------------------------------------------


def test_gzip_is_unpacked_for_one_and_for_many(api: Call) -> None:
    one = post(api, "turns", gzip.compress(json.dumps(turn_item()).encode()), **PACKED)
    assert (one.status_code, one.json()["status"]) == (201, "created")
    # Two members, one behind the other, are one body.
    half = json.dumps([turn_item(id="a"), turn_item(id="b")]).encode()
    many = post(api, "turns/batch", gzip.compress(half[:40]) + gzip.compress(half[40:]), **PACKED)
    assert many.json()["created"] == 2
    thumb = json.dumps({"turn": "a", "kind": "thumb", "value": 1}).encode()
    assert post(api, "feedback", gzip.compress(thumb), **PACKED).status_code == 201


def test_the_same_turn_packed_and_plain_is_one_turn(api: Call) -> None:
    body = json.dumps(turn_item()).encode()
    post(api, "turns", body)
    assert post(api, "turns", gzip.compress(body), **PACKED).json()["status"] == "duplicate"


@pytest.mark.parametrize(
    "body",
    [b"{}", b"", gzip.compress(b"{}")[:-6], gzip.compress(b"{}") + b"tail", zlib.compress(b"{}"), b"\x1f\x8b\x08\x00"],
    ids=["plain", "empty", "cut", "tail", "zlib", "head"],
)
def test_broken_gzip_is_said_to_be_broken(api: Call, body: bytes) -> None:
    status = 422 if not body else 400  # nothing at all is valid gzip of nothing, and no JSON
    problem(post(api, "turns", body, **PACKED), status)
    assert Quarantine.objects.count() == 0


def test_bombs_are_refused_without_being_unpacked(api: Call) -> None:
    bomb = gzip.compress(b" " * (MAX_BYTES + 1))
    assert len(bomb) < 10_000
    problem(post(api, "turns/batch", bomb, **PACKED), 413)
    # A bomb of bombs: members that are small each.
    problem(post(api, "turns/batch", gzip.compress(b" " * (MAX_BYTES // 2)) * 3, **PACKED), 413)
    problem(post(api, "turns", b" " * (MAX_BYTES + 1)), 413)


def test_other_encodings_are_named(api: Call) -> None:
    for encoding in ("br", "deflate", "gzip, gzip"):
        body = problem(post(api, "turns", b"{}", HTTP_CONTENT_ENCODING=encoding), 415)
        assert "gzip" in body["detail"]


# --- Lines ----------------------------------------------------------------------------------------


def test_lines_of_json_are_a_batch_with_their_numbers(api: Call) -> None:
    body = b"\xef\xbb\xbf" + lines(turn_item(id="a")) + b"\r\n\n  \n{broken\n" + lines(turn_item(id="b"), 7) + b"\n\n"
    answer = post(api, "turns/batch", body, LINES)
    assert answer.status_code == 207
    rows = answer.json()["results"]
    assert [(row["item"], row["line"], row["status"]) for row in rows] == [
        (0, 1, "created"), (1, 4, "invalid"), (2, 5, "created"), (3, 6, "invalid"),
    ]  # fmt: skip
    assert rows[1]["errors"][0]["message"].startswith("This line is not valid JSON")
    assert (answer.json()["created"], answer.json()["invalid"]) == (2, 2)
    stored = Quarantine.objects.order_by("pk").values_list("receipt__client_id", flat=True)
    assert list(stored) == ["a", "b"]


def test_lines_go_the_quick_way_one_by_one(api: Call) -> None:
    """Each usual one without the long way, and what is unusual or wrong in one line is the affair of that line."""
    from django.test import RequestFactory

    from capture.bodies import read_turns
    from capture.quick import QuickTurn

    odd = turn_item(id="b", prompt_tokens="12")  # a number spelled as text: the long way reads it
    body = lines(turn_item(id="a"), odd) + b"\r\n\n" + lines(turn_item(id="c"))
    batch = read_turns(RequestFactory().post("/", body, content_type=LINES))
    assert [type(item) for item in batch.items] == [QuickTurn, dict, QuickTurn]
    assert list(batch.lines) == [1, 2, 4]
    assert post(api, "turns/batch", body, LINES).json()["created"] == 3
    # The same by the other way is the same turn.
    assert post(api, "turns/batch", json.dumps([turn_item(id="a"), odd]).encode()).json()["duplicate"] == 2


def test_lines_of_feedback_packed(api: Call) -> None:
    api("post", "turns", turn_item())
    body = lines({"turn": "t-1", "kind": "thumb", "value": 1}, {"turn": "t-2", "kind": "thumb", "value": 1})
    rows = post(api, "feedback", gzip.compress(body), LINES, **PACKED).json()["results"]
    assert [(row["line"], row["status"]) for row in rows] == [(1, "created"), (2, "invalid")]


def test_one_id_twice_in_the_lines_of_one_batch(api: Call) -> None:
    body = lines(turn_item(id="a"), turn_item(id="a"), turn_item(id="a", question="Another?"))
    rows = post(api, "turns/batch", body, LINES).json()["results"]
    assert [row["status"] for row in rows] == ["created", "duplicate", "conflict"]
    assert Quarantine.objects.count() == 1


def test_a_line_of_another_world_stops_nobody(api: Call) -> None:
    deep = b"[" * 100_000
    odd = [deep, b"\xff\xfe", b'{"id": NaN}', b'{"id": 1' + b"0" * 5000 + b"}", b'"\\ud800"', b"\x00"]
    answer = post(api, "turns/batch", b"\n".join([*odd, lines(turn_item())]), LINES)
    assert [row["status"] for row in answer.json()["results"]] == ["invalid"] * len(odd) + ["created"]
    assert b"\\ud800" not in answer.content


def test_too_many_lines_and_none(api: Call) -> None:
    problem(post(api, "turns/batch", b"{}\n" * (MAX_ITEMS + 1), LINES), 413)
    assert post(api, "turns/batch", b"\n{}" * MAX_ITEMS + b"\n", LINES).json()["invalid"] == MAX_ITEMS
    for body in (b"", b"\n \r\n", b"\xef\xbb\xbf"):
        problem(post(api, "turns/batch", body, LINES), 422)


def test_lines_are_no_single_turn_and_other_types_are_none_at_all(api: Call) -> None:
    assert "batch" in problem(post(api, "turns", lines(turn_item()), LINES), 415)["detail"]
    for kind in ("text/csv", "application/xml", "multipart/form-data; boundary=x"):
        problem(post(api, "turns/batch", lines(turn_item()), kind), 415)


def test_a_mark_of_byte_order_before_json_is_no_error(api: Call) -> None:
    assert post(api, "turns", b"\xef\xbb\xbf" + json.dumps(turn_item()).encode()).status_code == 201

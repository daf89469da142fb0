"""The quick way takes less than the long one, never more, and writes what it takes to the same bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from capture.payloads import TurnItem
from capture.quick import quick_turn, quick_turns
from capture.receiving import _valid

TURN: dict[str, Any] = {
    "id": "web-1",
    "conversation": "chat-1",
    "question": "What does leaving early cost?",
    "history": [{"role": "user", "content": "Hi"}],
    "contexts": [
        {"text": "A fee of £35.", "title": "Fees", "source": "fees.md", "score": 0.5, "metadata": {"page": 3}},
        {"text": "No fee in the last 49 days.", "score": 1},
    ],
    "response": "£35. [1]",
    "model": "small-1",
    "latency_ms": 812,
    "prompt_tokens": 22,
    "time": "2026-03-01T11:00:00.5+01:00",
    "tags": ["web"],
    "metadata": {"user": {"id": "u-1", "name": "Ada"}, "list": [1, 2.5, None, True, "é"]},
    "outcome": "resolved",
    "client": "bot/1.0",
}


def long_way(turn: Any) -> bytes | None:
    try:
        return TurnItem.model_validate(turn).canonical()
    except ValidationError:
        return None


def test_a_usual_turn_is_taken_and_written_as_ever() -> None:
    quick = quick_turn(json.dumps(TURN).encode())
    assert quick is not None
    assert quick.canonical() == long_way(TURN)
    for body in ([TURN, {**TURN, "id": "web-2"}], {"turns": [TURN, {**TURN, "id": "web-2"}]}):
        turns = quick_turns(json.dumps(body, ensure_ascii=False).encode())
        assert turns is not None
        assert [turn.id for turn in turns] == ["web-1", "web-2"]


def test_turns_of_a_batch_came_one_after_the_other() -> None:
    turns = quick_turns(json.dumps([TURN] * 3).encode())
    assert turns is not None
    begun = datetime(2026, 3, 1, 10, 0, 59, 999_999, tzinfo=UTC)
    envelopes = [
        json.loads(_valid(turn, None, begun, place=place, client_id="", receipt_id="", conversation="").envelope)
        for place, turn in enumerate(turns)
    ]
    came = [datetime.fromisoformat(envelope["received"]) for envelope in envelopes]
    assert came[0] == begun
    assert came == sorted(set(came))
    assert envelopes[0]["item"] == json.loads(long_way(TURN) or b"")


def test_defaults_that_are_spelled_out_do_not_count() -> None:
    bare = {"id": "a", "question": "Q", "response": "R"}
    spelled = bare | {
        "conversation": None, "history": [], "contexts": [], "model": "", "adapter": "", "latency_ms": None,
        "time": None, "tags": [], "metadata": {}, "outcome": "", "client": "",
    }  # fmt: skip
    quick = quick_turn(json.dumps(spelled).encode())
    assert quick is not None
    assert quick.canonical() == long_way(bare) == long_way(spelled)


@pytest.mark.parametrize(
    "change",
    [
        {"question": " \n"}, {"response": "\t"}, {"id": ""}, {"id": "a\x00b"}, {"id": "a\x7f"}, {"id": "x" * 201},
        {"contexts": [{"text": " "}]}, {"contexts": [{"text": "t", "rank": 1}, {"text": "u"}]},
        {"contexts": [{"text": "t", "rank": 2}, {"text": "u", "rank": 2}]}, {"contexts": [{"text": "t"}] * 51},
        {"metadata": {"bad key": 1}}, {"metadata": {"a": [[[[[[[1]]]]]]]}}, {"metadata": {"a": 2**63}},
        {"metadata": {"a": "x" * 16_000}}, {"time": "1970-01-01T00:00:00Z"}, {"time": "2100-01-01T00:00:00Z"},
        {"time": "9999-12-31T23:59:59-23:59"}, {"model": "<b>"}, {"model": "a\n"}, {"latency_ms": -1},
        {"latency_ms": 2**31},
        {"tags": [""]}, {"tags": ["x" * 61]}, {"outcome": "great"}, {"unknown": 1}, {"question": None},
        {"prompt_tokens": 1.5}, {"history": [{"role": "tool", "content": ""}]}, {"question": "x" * 20_001},
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_what_the_long_way_refuses_is_not_taken(change: dict[str, Any]) -> None:
    assert long_way(TURN | change) is None
    assert quick_turn(json.dumps(TURN | change).encode()) is None
    assert quick_turns(json.dumps([TURN, TURN | change]).encode()) is None


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "half \udfff pair"])
def test_text_that_must_be_mended_goes_the_long_way(text: str) -> None:
    body = json.dumps(TURN | {"question": text}).encode()
    assert quick_turn(body) is None
    assert b"\xef\xbf\xbd" in (long_way(json.loads(body)) or b"")


@pytest.mark.parametrize("body", [b"", b"{", b"[]x", b"\xff", b"[" * 100_000, b'{"turns": 1}', b"NaN", b"null"])
def test_no_json_is_not_taken(body: bytes) -> None:
    assert quick_turn(body) is None
    assert quick_turns(body) is None


_text = st.text(max_size=30)
_number = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
_json = st.recursive(
    _number | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)
_plain_json = st.dictionaries(st.text("ab.é_", min_size=1, max_size=5), _json, max_size=3)
_time = st.datetimes().map(lambda t: t.isoformat() + "Z") | st.sampled_from(
    ["2026-03-01", "2026-03-01T10:00", "2026-03-01 10:00:00Z", "2026-03-01T10:00:00.1234567Z", "2026-02-30T10:00:00Z",
     "2026-03-01T23:59:60Z", "2026-03-01T10:00:00-12:34", "2026-03-01T10:00:00+99:00", "1772359200", ""]
)  # fmt: skip
_context = st.fixed_dictionaries(
    {"text": _text},
    optional={"title": _text, "source": _text, "rank": st.integers(-1, 4) | _number, "score": _number,
              "metadata": _plain_json, "chunk": st.integers(1, 9)},
)  # fmt: skip
_message = st.fixed_dictionaries({"role": st.sampled_from(["user", "x"]), "content": _text})
_turn = st.fixed_dictionaries(
    {"id": _text, "question": _text, "response": _text},
    optional={
        "conversation": st.none() | _text, "contexts": st.lists(_context, max_size=3), "model": _text, "adapter": _text,
        "history": st.lists(_message, max_size=2),
        "latency_ms": _number | _text, "prompt_tokens": _number, "completion_tokens": _number, "time": _time | _number,
        "tags": st.lists(_text, max_size=2), "metadata": _plain_json, "outcome": st.sampled_from(["", "resolved", "x"]),
        "client": _text, "prompt_digest": _text, "retrieval_config": _text, "withheld": st.booleans(),
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(_turn, st.booleans())
def test_what_is_taken_is_written_to_the_same_bytes(turn: dict[str, Any], escaped: bool) -> None:
    body = json.dumps(turn, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    quick = quick_turn(body)
    if quick is not None:
        assert quick.canonical() == long_way(json.loads(body))


@pytest.mark.parametrize("number", [0, -0.0, 1, 1.0, 0.1, 1e-7, 5e-324, 1e15, 123456789.123, 1e15 + 0.5, 1e16, 1e300])
def test_numbers_are_written_alike_or_not_taken(number: float) -> None:
    for change in ({"metadata": {"a": number, "b": [{"c": number}]}}, {"contexts": [{"text": "t", "score": number}]}):
        quick = quick_turn(json.dumps(TURN | change).encode())
        assert (quick is None) == (abs(number) > 1e15)
        assert quick is None or quick.canonical() == long_way(TURN | change)

"""Feedback that is imported keeps the time at which it was given."""

from __future__ import annotations

from typing import Any

from capture.imports import langfuse, mapped, openai_chat, phoenix, ratchet
from capture.imports.units import Converted
from capture.models import Feedback, Metric, Turn
from capture.reading import readable, turn_json
from capture.receiving import receive_feedback, receive_turns
from capture.services import scrub_waiting
from tests.capture.conftest import Call, Cast, turn_item

ASKED = "2026-03-01T10:00:00+00:00"
SAID = "2026-03-04T09:30:00+00:00"


def times(converted: Converted) -> list[str | None]:
    return [item.get("time") for item in converted.feedback]


def of_langfuse(score: dict[str, Any]) -> Converted:
    trace = {"id": "t", "timestamp": ASKED, "sessionId": "s", "input": "Fee?", "output": "£35."}
    rows = [trace, {"id": "s1", "traceId": "t", "name": "helpful", "dataType": "BOOLEAN", "value": 1, **score}]
    return langfuse.assemble("t", [piece for row in rows for _, piece in langfuse.pieces(row)])


def test_langfuse_says_when_a_score_was_given() -> None:
    assert times(of_langfuse({"timestamp": SAID})) == [SAID]
    assert times(of_langfuse({"createdAt": SAID})) == [SAID]
    assert times(of_langfuse({})) == [ASKED], "else it is as old as its turn"
    assert times(of_langfuse({"timestamp": "1970-01-01T00:00:00Z"})) == [None], "a wrong clock costs no thumb"


def test_phoenix_says_when_somebody_annotated() -> None:
    annotation = {"name": "helpful", "score": 1, "annotator_kind": "HUMAN", "created_at": SAID}
    span = {
        "context.trace_id": "t", "context.span_id": "a", "span_kind": "CHAIN", "start_time": ASKED,
        "attributes.input.value": "Fee?", "attributes.output.value": "£35.",
        "attributes.annotations": [{"annotation": annotation}],
    }  # fmt: skip
    assert times(phoenix.assemble("t", [piece for _, piece in phoenix.pieces(span)])) == [SAID]
    del annotation["created_at"]
    assert times(phoenix.assemble("t", [piece for _, piece in phoenix.pieces(span)])) == [ASKED]


def test_chats_and_tables_have_one_too() -> None:
    messages = [{"role": "user", "content": "Fee?"}, {"role": "assistant", "content": "£35."}]
    chat = {"messages": messages, "time": ASKED, "feedback": {"value": -1, "time": SAID, "comment": "Wrong"}}
    assert times(openai_chat.convert(chat)) == [SAID, SAID]
    assert times(openai_chat.convert({**chat, "feedback": -1})) == [ASKED]
    row = {"question": "Fee?", "response": "£35.", "time": ASKED, "thumb": "down", "feedback_time": SAID}
    columns = mapped.map_of_header(row)
    assert columns is not None
    assert times(mapped.convert(row, columns)) == [SAID]
    assert times(mapped.convert({**row, "feedback_time": ""}, columns)) == [ASKED]


def test_what_was_exported_comes_back_with_times_and_metrics(api: Call, cast: Cast) -> None:
    api("post", "turns", turn_item(outcome="resolved", client="shop-bot/2.1"))
    for item in (
        {"kind": "thumb", "value": -1, "time": SAID}, {"kind": "metric", "metric": "resolved", "value": True},
        {"kind": "metric", "metric": "minutes", "value": 1}, {"kind": "comment", "text": "Too short"},
    ):  # fmt: skip
        assert api("post", "feedback", {"turn": "t-1", **item}).status_code == 201
    scrub_waiting()
    exported = turn_json(readable(Turn.objects.all()).get())
    converted = ratchet.convert(exported)
    assert [r.status for r in receive_turns(assistant=cast.other, api_key=None, items=converted.turns)] == ["created"]
    for _ in range(2):  # the second time nothing is new
        results = receive_feedback(assistant=cast.other, api_key=None, items=converted.feedback)
    assert {result.status for result in results} == {"duplicate"}
    scrub_waiting()
    again = turn_json(readable(Turn.objects.of(cast.other)).get())
    for name in ("time", "outcome", "client", "contexts", "metadata", "tags", "latency_ms"):
        assert again[name] == exported[name], name
    kept = [{k: v for k, v in row.items() if k != "received_at"} for row in again["feedback"]]
    assert kept == [{k: v for k, v in row.items() if k != "received_at"} for row in exported["feedback"]]
    assert dict(Metric.objects.filter(assistant=cast.other).values_list("name", "holds"))["resolved"] == "boolean"
    assert Feedback.objects.filter(assistant=cast.other, given_at=SAID).count() == 1

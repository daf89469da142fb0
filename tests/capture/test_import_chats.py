"""Our own lines and chats as payloads, and what all formats share: pure functions on small records."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.imports import langfuse, openai_chat, phoenix, ratchet
from capture.imports.contents import answer_of, documents_of, messages_of, question_of
from capture.imports.scores import Score, feedback_of
from capture.imports.traces import turn_of
from capture.imports.units import Converted, Refused
from capture.imports.values import depth_of, fit_metadata, milliseconds, moment, structure
from capture.payloads import TurnItem
from tests.capture.import_samples import ANSWERED, ASKED, FEE, traced, valid


def test_our_own_lines_pass_through_and_exports_lose_what_the_server_adds() -> None:
    plain = {"id": "a", "question": ASKED, "response": ANSWERED, "feedback": [{"kind": "thumb", "value": -1}]}
    turns, feedback = valid(ratchet.convert(plain))
    assert (turns[0].id, feedback[0].turn, feedback[0].value) == ("a", "a", -1)
    exported = {
        "id": "0197-ours", "client_id": "web-1", "conversation": "c", "time": "2026-03-01T10:00:00+00:00",
        "question": ASKED, "history": [], "response": ANSWERED, "citations": [[1, 0]], "declined": False,
        "contexts": [{"rank": 1, "title": "", "source": "a.md", "text": FEE, "score": None, "metadata": {},
                      "evidence": [[0, 0, 0.7]]}],
        "model": "m", "adapter": "", "prompt_digest": "", "retrieval_config": "", "policy_digest": "x" * 64,
        "latency_ms": None, "prompt_tokens": None, "completion_tokens": 4, "tags": [], "metadata": {}, "masked": [],
        "feedback": [{"kind": "thumb", "value": 1.0, "text": "", "received_at": "2026-03-01T11:00:00+00:00"}],
    }  # fmt: skip
    turns, feedback = valid(ratchet.convert(exported))
    assert (turns[0].id, turns[0].citations, turns[0].contexts[0].source) == ("web-1", [(1, 0)], "a.md")
    assert feedback[0].id == valid(ratchet.convert(exported))[1][0].id
    assert valid(ratchet.convert({"turn": "web-1", "kind": "comment", "text": "Old."}))[1][0].text == "Old."
    without = {"question": ASKED, "response": ANSWERED}
    assert ratchet.convert(without).turns[0]["id"] == ratchet.convert(dict(without)).turns[0]["id"]


def test_every_answer_of_a_chat_is_a_turn_and_a_growing_log_names_it_alike() -> None:
    first = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
    ]
    more = [
        *first,
        {"role": "user", "content": [{"type": "text", "text": ASKED}]},
        {"role": "assistant", "content": "£35"},
    ]
    record = {
        "messages": more,
        "model": "gpt-4o",
        "metadata": {"session_id": "s", "channel": "web"},
        "created": 1767225600,
    }
    one, two = valid(openai_chat.convert(record))[0]
    assert (one.question, one.response, one.conversation, one.time) == ("Hi", "Hello.", "s", None)
    assert (two.question, two.response, two.model) == (ASKED, "£35", "gpt-4o")
    assert two.time is not None
    assert two.time.isoformat() == "2026-01-01T00:00:00+00:00"
    assert [m.role for m in two.history] == ["system", "user", "assistant"]
    assert two.metadata == {"channel": "web"}
    plain = {"messages": more}
    growing = [turn.id for turn in valid(openai_chat.convert({"messages": first}))[0]]
    assert growing == [turn.id for turn in valid(openai_chat.convert(plain))[0]][:1]
    named = [turn.id for turn in valid(openai_chat.convert({"id": "r-1", **plain}))[0]]
    assert named == ["r-1:1", "r-1"]


def test_a_logged_pair_with_contexts_tools_and_a_thumb() -> None:
    record = {
        "timestamp": 1767225600, "workload_id": "qa", "client_id": "web",
        "request": {"model": "m", "messages": [{"role": "user", "content": ASKED}]},
        "response": {"id": "chatcmpl-1", "model": "m-2026", "usage": {"prompt_tokens": 90, "completion_tokens": 9},
                     "choices": [{"message": {"role": "assistant", "content": ANSWERED,
                                              "context": {"citations": [{"content": FEE, "title": "Leaving"}]}}}]},
        "feedback": "👎",
    }  # fmt: skip
    turns, feedback = valid(openai_chat.convert(record))
    (turn,) = turns
    assert (turn.id, turn.model, turn.prompt_tokens, turn.completion_tokens) == ("chatcmpl-1", "m-2026", 90, 9)
    assert [c.title for c in turn.contexts] == ["Leaving"]
    assert (feedback[0].kind, feedback[0].value, feedback[0].turn) == ("thumb", -1, "chatcmpl-1")
    tools = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": json.dumps({"results": [{"text": FEE, "score": 0.8, "url": "a.md"}]})},
        {"role": "assistant", "content": ANSWERED},
    ]
    (turn,) = valid(openai_chat.convert({"messages": tools, "label": True}))[0]
    assert [(c.text, c.source, c.score) for c in turn.contexts] == [(FEE, "a.md", 0.8)]
    assert valid(openai_chat.convert({"messages": tools, "label": True}))[1][0].value == 1
    assert not openai_chat.convert({"messages": tools, "label": "spam"}).feedback


@pytest.mark.parametrize(
    "record", [[], {"messages": "no"}, {"messages": []}, {"messages": [{"role": "user", "content": "Hi"}]},
               {"messages": [{"role": "assistant", "content": "Hi"}]}, {"messages": [{"role": "robot", "content": 1}]}]
)  # fmt: skip
def test_chats_without_an_answer_are_refused(record: Any) -> None:
    with pytest.raises(Refused):
        openai_chat.convert(record)


def test_a_message_of_an_unknown_role_is_called_that() -> None:
    with pytest.raises(Refused, match="of an unknown role"):
        openai_chat.convert({"messages": [{"role": "robot", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]})


def test_times_in_every_unit_and_wording() -> None:
    seconds = 1767225600
    for value in (seconds, seconds * 1000, seconds * 10**6, seconds * 10**9, str(seconds), "2026-01-01T00:00:00Z",
                  "2026-01-01 00:00:00.000000", "2026-01-01T01:00:00+01:00", "2026-01-01"):  # fmt: skip
        assert moment(value) == "2026-01-01T00:00:00+00:00", value
    for value in ("soon", "", None, float("nan"), [], True, "9" * 400, float("inf")):
        assert moment(value) is None
    assert milliseconds("2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z") is None


def test_messages_of_other_frameworks() -> None:
    langchain = [[{"id": ["langchain", "HumanMessage"], "kwargs": {"content": "Hi", "type": "human"}}]]
    genai = [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    gemini = [{"role": "model", "parts": [{"text": "Hi"}]}]
    assert messages_of(langchain) == messages_of(genai) == [{"role": "user", "content": "Hi"}]
    assert messages_of(gemini) == [{"role": "assistant", "content": "Hi"}]
    assert messages_of([{"text": "a document"}]) is None
    assert answer_of({"choices": [{"message": {"role": "assistant", "content": "Yes"}}]}) == "Yes"
    assert answer_of({"generations": [[{"text": "Yes"}]]}) == "Yes"
    assert question_of({"input": {"question": "Why?"}}) == "Why?"
    llama = {"source_nodes": [{"node": {"text": FEE, "metadata": {"file_name": "a.md"}}, "score": 0.5}]}
    assert documents_of(llama, []) == [
        {"text": FEE, "source": "a.md", "score": 0.5, "metadata": {"file_name": "a.md"}}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (Score("1", "user-feedback", 1.0), [("thumb", 1)]),
        (Score("1", "thumbs", 0.0), [("thumb", -1)]),
        (Score("1", "feedback", label="Thumbs Down"), [("thumb", -1)]),
        (Score("1", "quality", label="positive", kind="CATEGORICAL"), [("thumb", 1)]),
        (Score("1", "star_rating", 4.0), [("rating", 4.0)]),
        (Score("1", "rating", 80.0), []),
        (Score("1", "latency", 1.0), []),
        (Score("1", "faithfulness", 1.0, source="EVAL"), []),
        (Score("1", "correctness", 1.0, source="LLM"), []),
        (Score("1", "topic", label="billing"), []),
    ],
)
def test_scores_are_feedback_only_where_a_person_gave_a_thumb_or_stars(score: Score, found: list[Any]) -> None:
    notes: list[str] = []
    payloads = feedback_of(score, turn="t", prefix="x", notes=notes)
    assert [(p["kind"], p["value"]) for p in payloads] == found
    assert bool(notes) == (not found)


PACKED = ["[1]", '{"role": "user"}', "{'a': nan}"]
NAMES = """messages role content input output question data trace traceId trace_id id type name context attributes
    context.trace_id attributes.retrieval.documents document.content text metadata request response choices value
    feedback client_id contexts timestamp sessionId dataType scores observations parts kwargs"""
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(PACKED),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(NAMES.split()) | st.text(max_size=8),
        inner,
        max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip


@given(ANYTHING)
def test_no_record_whatever_breaks_a_format(record: Any) -> None:
    for flat in (ratchet.convert, openai_chat.convert):
        with contextlib.suppress(Refused):
            assert isinstance(flat(record), Converted)
    for grouped in (langfuse, phoenix):
        with contextlib.suppress(Refused):
            assert all(isinstance(converted, Converted) for converted in traced(grouped, record).values())


@given(ANYTHING)
def test_metadata_always_fits_and_values_never_break(value: Any) -> None:
    fitted = fit_metadata({"key \x00 with spaces": value, "deep": [[[[[[[[value]]]]]]]]}, [])
    TurnItem.model_validate({"id": "a", "question": "q", "response": "r", "metadata": fitted})
    moment(value)
    structure(value)
    documents_of(value, [])
    assert depth_of(value) < 61


def test_metadata_over_the_limit_loses_its_largest_part() -> None:
    notes: list[str] = []
    assert fit_metadata({"large": "x" * 20_000, "small": 1}, notes) == {"small": 1}
    assert len(notes) == 1


def test_a_trace_without_an_answer_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="no answer"):
        turn_of("t", [{"what": "step", "id": "a", "kind": "other", "asked": ASKED}], prefix="x")
    with pytest.raises(Refused, match="no question"):
        turn_of("t", [{"what": "step", "id": "a", "kind": "other", "answered": "x"}], prefix="x")

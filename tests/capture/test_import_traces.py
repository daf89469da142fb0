"""Rows of Langfuse and spans of Phoenix, in the shapes that they are exported in, as turns and feedback."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from capture.imports import langfuse, phoenix
from capture.imports.scores import NO_SCALE, NOT_HUMAN
from capture.imports.units import Refused
from tests.capture.import_samples import ANSWERED, ASKED, BLOB, DOCUMENTS, FEE, SPANS, span, traced, valid


def test_rows_of_a_blob_export_in_any_order_become_a_turn_with_feedback() -> None:
    for rows in (BLOB, BLOB[::-1]):
        converted = traced(langfuse, *rows)["t1"]
        (turn,), feedback = valid(converted)
        assert (turn.id, turn.conversation, turn.question, turn.response) == ("t1", "s-1", ASKED, ANSWERED)
        assert [(c.source, c.score) for c in turn.contexts] == [("leaving.md", 0.8), ("moving.md", None)]
        assert (turn.model, turn.prompt_tokens, turn.completion_tokens, turn.latency_ms) == ("gpt-4o", 210, 12, 3000)
        assert turn.time is not None
        assert turn.time.isoformat() == "2026-03-01T10:00:00+00:00"
        assert [m.content for m in turn.history] == ["Hi", "Hello."]
        assert turn.metadata == {"channel": "web", "user": "u-17"}
        assert [(f.kind, f.value, f.text) for f in feedback] == [
            ("thumb", -1, ""), ("comment", None, "Too short."), ("correction", None, "It costs £35 on a fixed plan."),
        ]  # fmt: skip
        assert converted.notes == [NOT_HUMAN]


def test_the_table_of_the_pages_with_score_columns_and_a_downloaded_trace() -> None:
    row = {"id": "t2", "timestamp": "2026-03-01T10:00:00.000Z", "name": "chat", "userId": None, "sessionId": "s",
           "release": None, "version": None, "environment": "default", "tags": ["a"], "bookmarked": False,
           "public": False, "input": {"messages": [{"role": "user", "content": ASKED}]}, "output": {"answer": ANSWERED},
           "metadata": {}, "comments": [], "user-rating": [4], "helpful": ["yes"], "cost": [0.02]}  # fmt: skip
    assert langfuse.recognises(row)
    (turn,), feedback = valid(traced(langfuse, row)["t2"])
    assert (turn.question, turn.response, turn.tags) == (ASKED, ANSWERED, ["a"])
    assert sorted((f.kind, f.value) for f in feedback) == [("rating", 4), ("thumb", 1)]
    cells = {k: v if isinstance(v, str) else "" if v is None else json.dumps(v) for k, v in row.items()}
    assert traced(langfuse, cells)["t2"] == traced(langfuse, row)["t2"]  # the same row as CSV
    observations = [{"id": "o1", "traceId": "t3", "type": "GENERATION", "name": "x",
                     "startTime": "2026-03-01T10:00:00Z",
                     "endTime": "2026-03-01T10:00:01Z", "input": ASKED, "output": ANSWERED, "model": "m",
                     "sessionId": None, "usageDetails": {"input": 1, "output": 2}}]  # fmt: skip
    scores = [{"id": "s", "traceId": "t3", "name": "stars", "dataType": "NUMERIC", "value": 5, "source": "API"}]
    whole = {"observations": observations, "scores": scores}
    assert langfuse.recognises(whole)
    (turn,), feedback = valid(traced(langfuse, whole)["t3"])
    assert (turn.model, turn.latency_ms, feedback[0].value) == ("m", 1000, 5)
    page = {"data": [{**row, "observations": ["o1"], "scores": ["s1"]}], "meta": {"page": 1}}
    assert list(traced(langfuse, page)) == ["t2"]


def test_scores_alone_are_feedback_on_a_turn_imported_before() -> None:
    converted = traced(langfuse, BLOB[3])["t1"]
    assert not converted.turns
    assert {payload["turn"] for payload in converted.feedback} == {"t1"}


def test_a_score_whose_name_is_no_text_is_feedback_all_the_same() -> None:
    nameless = {"name": ["x"], "traceId": "t1", "value": 1, "dataType": "BOOLEAN", "source": "API"}
    _, (one,) = valid(traced(langfuse, *BLOB[:2], nameless)["t1"])
    _, (other,) = valid(traced(langfuse, {**nameless, "traceId": "t9"})["t9"])
    assert (one.kind, one.value, one.turn) == ("thumb", 1, "t1")
    assert one.id != other.id
    converted = traced(langfuse, {**nameless, "id": "s", "dataType": "NUMERIC"})["t1"]  # of what, nobody can say
    assert converted.notes == [NO_SCALE]


def test_scores_without_an_id_are_told_apart_by_their_time() -> None:
    first = {"name": "stars", "traceId": "t1", "value": 2, "dataType": "NUMERIC", "timestamp": "2026-03-01T10:01:00Z"}
    second = {**first, "value": 5, "timestamp": "2026-03-01T10:02:00Z"}
    for _ in range(2):  # read again, each is the same one
        _, (two, five) = valid(traced(langfuse, *BLOB[:2], first, second)["t1"])
        assert (two.value, five.value) == (2, 5)
        assert len({two.id, five.id}) == 2
    _, (again,) = valid(traced(langfuse, first)["t1"])
    assert again.id == two.id


def test_a_row_of_a_page_that_is_none_costs_itself_only() -> None:
    good = {"id": "t1", "timestamp": "2026-03-01T10:00:00Z", "sessionId": None, "input": ASKED, "output": ANSWERED}
    page = {"data": [good, {"id": "t2", "input": "?"}, {"name": "n", "dataType": "NUMERIC", "value": 1}, {}, "t3"]}
    found: dict[str, list[Any]] = {}
    for trace, piece in langfuse.pieces(json.loads(json.dumps(page))):
        found.setdefault(trace, []).append(piece)
    (turn,) = langfuse.assemble("t1", found.pop("t1")).turns
    assert turn["question"] == ASKED
    reasons = []
    for trace, pieces in found.items():
        with pytest.raises(Refused) as caught:
            langfuse.assemble(trace, pieces)
        reasons.append(caught.value.reason)
    nothing = "neither a trace nor an observation nor a score of Langfuse"
    assert reasons == [nothing, "a score of no trace", nothing]


@pytest.mark.parametrize("record", [None, [], {}, {"id": "x"}, {"name": "n", "data_type": "NUMERIC"}])
def test_rows_of_nothing_known_are_refused(record: Any) -> None:
    with pytest.raises(Refused):
        langfuse.pieces(record)


def as_rest(row: dict[str, Any]) -> dict[str, Any]:
    """The same span as the REST API gives it: numbered keys instead of lists."""

    def numbered(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return {f"{prefix}.{i}.{k}": v for i, part in enumerate(value) for k, v in part.items()}
        return {prefix: value}

    flat = {k.removeprefix("attributes."): v for k, v in row.items() if k.startswith("attributes.")}
    kept = {k: v for k, v in row.items() if not k.startswith(("attributes.", "context."))}
    context = {"trace_id": row["context.trace_id"], "span_id": row["context.span_id"]}
    attributes = {name: value for k, v in flat.items() for name, value in numbered(k, v).items()}
    return {**kept, "start_time": "2026-03-01T10:00:00+00:00", "end_time": "2026-03-01T10:00:01.200000+00:00",
            "context": context, "attributes": attributes}  # fmt: skip


def as_csv(row: dict[str, Any]) -> dict[str, str]:
    """The same span as `to_csv` writes it: Python's own way to write lists."""
    return {k: "" if v is None else v if isinstance(v, str) else repr(v) for k, v in row.items()}


@pytest.mark.parametrize("form", [dict, as_rest, as_csv])
def test_spans_in_every_shape_become_the_same_turn(form: Callable[[Any], Any]) -> None:
    rows = [form(row) for row in SPANS]
    assert all(phoenix.recognises(row) for row in rows)
    converted = traced(phoenix, *rows)["f" * 32]
    (turn,), feedback = valid(converted)
    assert (turn.id, turn.conversation, turn.question, turn.response) == ("f" * 32, "s-1", ASKED, ANSWERED)
    assert [(c.text, c.source, c.score) for c in turn.contexts] == [
        (FEE, "leaving.md", 0.8), ("Tell us 10 days before.", "", None),
    ]  # fmt: skip
    assert (turn.model, turn.prompt_tokens, turn.completion_tokens, turn.latency_ms) == ("gpt-4o", 210, 12, 1200)
    assert turn.time is not None
    assert turn.time.isoformat() == "2026-03-01T10:00:00+00:00"
    assert [m.content for m in turn.history] == ["Hi", "Hello."]
    assert turn.metadata == {"channel": "web", "user": "u-17"}
    assert [(f.kind, f.value, f.text) for f in feedback] == [("thumb", 1, ""), ("comment", None, "Clear.")]
    assert converted.notes == [NOT_HUMAN]


def test_a_reranker_has_the_last_word_on_the_passages() -> None:
    order = [DOCUMENTS[1], DOCUMENTS[0]]
    rows = [*SPANS, span("rerank", "RERANKER", "d", "a", reranker__output_documents=order)]
    (turn,), _ = valid(traced(phoenix, *rows)["f" * 32])
    assert [c.text for c in turn.contexts] == ["Tell us 10 days before.", FEE]


def test_a_text_that_looks_like_a_list_stays_a_text_and_forged_places_make_no_long_list() -> None:
    rows = [span("q", "CHAIN", "a", None, input__value=ASKED, output__value="[1]")]
    assert valid(traced(phoenix, *rows)["f" * 32])[0][0].response == "[1]"
    forged = {"retrieval.documents.999999.document.content": "far", "retrieval.documents.3.document.content": "near"}
    row = {"context": {"trace_id": "t", "span_id": "s"}, "span_kind": "RETRIEVER", "attributes": forged}
    (_, piece), *_ = phoenix.pieces(row)
    assert [c["text"] for c in piece["documents"]] == ["near"]

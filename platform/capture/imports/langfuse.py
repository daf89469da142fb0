"""Langfuse: rows of traces, observations and scores, as its pages, its blob export and its API write them.

Pages and API write camelCase, the blob export snake_case; tables of the pages carry one column per score. Traces and
their observations may stand in different files and in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from capture.imports.contents import answer_of, documents_of, history_of, messages_of, question_of
from capture.imports.traces import Piece, slim, turn_of
from capture.imports.units import Converted, Refused
from capture.imports.values import content_id, first, fit_metadata, is_missing, moment, number, structure, text, whole

_TYPES = {"SPAN", "GENERATION", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL"}
_SCORE_TYPES = {"NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION"}
_TRACE_MARKS = {"sessionId", "session_id", "userId", "user_id", "bookmarked", "release", "environment"}
_NOT_SCORES = {"tags", "comments", "observations", "scores", "input", "output", "metadata", "traceTags", "toolCalls",
               "toolCallNames", "tool_calls", "tool_call_names", "toolDefinitions", "tool_definitions"}  # fmt: skip
_NOTHING = "neither a trace nor an observation nor a score of Langfuse"
_REFUSED = "refused"
_NESTED = ("data", "traces", "observations", "scores")


def recognises(record: Mapping[str, Any]) -> bool:
    if isinstance(record.get("trace"), Mapping) or _is_list(record, "observations"):
        return True
    if _is_list(record, "data"):
        data = record["data"]
        return bool(data) and isinstance(data[0], Mapping) and recognises(data[0])
    return _is_score(record) or _is_observation(record) or _is_trace(record)


def pieces(record: Any) -> list[tuple[str, Piece]]:
    """(trace id, piece) of every row in a record; a record may hold a whole trace, or a page of the API.

    Raises:
        Refused: not an object, not a row of Langfuse, or a row without the id of its trace.
    """
    if not isinstance(record, Mapping):
        raise Refused("not an object")
    found = list(_pieces(record))
    if not found:
        raise Refused(_NOTHING)
    return found


def assemble(trace: str, found: list[Piece]) -> Converted:
    """Raises as `traces.turn_of`, and Refused for a row that was none."""
    if found[0]["what"] == _REFUSED:
        raise Refused(found[0]["why"])
    return turn_of(trace, found, prefix="langfuse")


def _pieces(record: Mapping[str, Any]) -> Iterator[tuple[str, Piece]]:
    inner = record.get("trace")
    for row in [inner] if isinstance(inner, Mapping) else []:
        yield from _row(row)
    nested = False
    for name in _NESTED:
        for row in record[name] if _is_list(record, name) else []:
            if isinstance(row, Mapping):  # the list of the API's traces holds ids instead
                nested = True
                yield from _nested(row)
    if not isinstance(inner, Mapping) and not (nested and not _is_trace(record)):
        yield from _row(record)


def _nested(row: Mapping[str, Any]) -> Iterator[tuple[str, Piece]]:
    """A row of a page that is none costs itself, not the page: it comes by as a trace of its own, which is refused."""
    try:
        found = list(_pieces(row))
        why = _NOTHING
    except Refused as error:
        found, why = [], error.reason
    yield from found or [(content_id(_REFUSED, row), {"what": _REFUSED, "why": why})]


def _row(row: Mapping[str, Any]) -> Iterator[tuple[str, Piece]]:
    if _is_score(row):
        if trace := text(first(row, "traceId", "trace_id")):
            yield trace, _score(row)
        else:
            raise Refused("a score of no trace")
    elif _is_observation(row):
        trace = text(first(row, "traceId", "trace_id"))
        if not trace:
            raise Refused("an observation of no trace")
        yield trace, _observation(row)
        for score in _score_columns(row, trace):
            yield trace, score
    elif _is_trace(row):
        trace = text(row.get("id"))
        yield trace, _trace(row)
        for score in _score_columns(row, trace):
            yield trace, score


def _is_list(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), list)


def _is_score(row: Mapping[str, Any]) -> bool:
    kind = str(first(row, "dataType", "data_type") or "").upper()
    return not is_missing(row.get("name")) and kind in _SCORE_TYPES and "type" not in row


def _is_observation(row: Mapping[str, Any]) -> bool:
    return str(row.get("type") or "").upper() in _TYPES and bool({"traceId", "trace_id"} & row.keys())


def _is_trace(row: Mapping[str, Any]) -> bool:
    return bool(text(row.get("id"))) and "timestamp" in row and bool(_TRACE_MARKS & row.keys())


def _trace(row: Mapping[str, Any]) -> Piece:
    seconds = number(row.get("latency"))
    return slim(
        {
            "what": "trace",
            **_exchange(row),
            **_facts(row),
            "time": moment(row.get("timestamp")),
            "latency_ms": seconds * 1000 if seconds is not None and seconds >= 0 else None,
        }
    )


def _observation(row: Mapping[str, Any]) -> Piece:
    kind = _kind(row)
    notes: list[str] = []
    retrieves = kind in ("retriever", "reranker")
    return slim(
        {
            "what": "step",
            "id": text(row.get("id")),
            "parent": text(first(row, "parentObservationId", "parent_observation_id")),
            "kind": kind,
            "start": moment(first(row, "startTime", "start_time")),
            "end": moment(first(row, "endTime", "end_time")),
            **({"asked": question_of(row.get("input"))} if retrieves else _exchange(row)),
            "documents": documents_of(row.get("output"), notes) if retrieves else None,
            "model": text(first(row, "model", "provided_model_name", "providedModelName")),
            **(_tokens(row) if kind == "llm" else {}),
            **_facts(row),
        }
    )


def _tokens(row: Mapping[str, Any]) -> Piece:
    """Newer exports count by category, older ones in columns of their own."""
    usage = structure(first(row, "usageDetails", "usage_details", "usage"))
    counts = {**row, "input": None, "output": None, **(usage if isinstance(usage, Mapping) else {})}
    return {
        "prompt_tokens": whole(first(counts, "input", "promptTokens", "inputTokens", "inputUsage")),
        "completion_tokens": whole(first(counts, "output", "completionTokens", "outputTokens", "outputUsage")),
    }


def _kind(row: Mapping[str, Any]) -> str:
    """By type; older versions know spans only, where the name says that something was retrieved."""
    given, name = str(row.get("type")).upper(), text(row.get("name")).lower()
    if "rerank" in name:
        return "reranker"
    if given == "RETRIEVER" or (given in ("SPAN", "TOOL") and "retriev" in name):
        return "retriever"
    return "llm" if given == "GENERATION" else "side" if given in ("EVALUATOR", "EMBEDDING", "GUARDRAIL") else "other"


def _exchange(row: Mapping[str, Any]) -> Piece:
    notes: list[str] = []
    messages = messages_of(row.get("input")) or []
    asked = max((place for place, m in enumerate(messages) if m["role"] == "user"), default=0)
    return {
        "asked": question_of(row.get("input")),
        "answered": answer_of(row.get("output")),
        "history": history_of(messages[:asked], notes, system=False),
    }


def _facts(row: Mapping[str, Any]) -> Piece:
    notes: list[str] = []
    return {
        "session": text(first(row, "sessionId", "session_id")),
        "user": text(first(row, "userId", "user_id")),
        "tags": structure(first(row, "tags", "traceTags")),
        "metadata": fit_metadata(row.get("metadata"), notes),
    }


def _score(row: Mapping[str, Any]) -> Piece:
    given = first(row, "timestamp", "createdAt", "created_at")
    # Without an id, what one name says at two moments are two scores; read again, each is the same one.
    own = ":".join(part for part in (text(row.get("name")), text(given)) if part)
    return slim(
        {
            "what": "score",
            "id": text(row.get("id")) or own,
            "name": text(row.get("name")),
            "value": number(row.get("value")),
            "label": text(first(row, "stringValue", "string_value", "longStringValue")),
            "kind": text(first(row, "dataType", "data_type")).upper(),
            "comment": text(row.get("comment")),
            "source": text(row.get("source")),
            "time": moment(given),
        }
    )


def _score_columns(row: Mapping[str, Any], trace: str) -> Iterator[Piece]:
    """Scores that the tables of the pages carry in columns of their own: {"helpful": [1]}. They name no source."""
    for name, given in row.items():
        values = structure(given) if name not in _NOT_SCORES else None
        if not isinstance(values, list) or not values or len(name) > 100:
            continue
        for place, value in enumerate(values[:20]):
            if isinstance(value, bool | int | float | str):
                found = number(value)
                label = value if isinstance(value, str) and found is None else ""
                yield slim(
                    {
                        "what": "score", "id": f"{trace}:{name}:{place}", "name": name, "value": found, "label": label,
                    }
                )  # fmt: skip

"""Records as other systems write them, and how tests import them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command

from capture.imports.units import Converted
from capture.payloads import FeedbackItem, TurnItem
from tests.capture.conftest import turn_item

ASKED, ANSWERED = "What does leaving early cost?", "The exit fee is £35. [1]"
FEE = "A fixed plan has an exit fee of £35."


def valid(converted: Converted) -> tuple[list[TurnItem], list[FeedbackItem]]:
    turns = [TurnItem.model_validate(turn) for turn in converted.turns]
    return turns, [FeedbackItem.model_validate(payload) for payload in converted.feedback]


def traced(format_module: Any, *records: Any) -> dict[str, Converted]:
    groups: dict[str, list[Any]] = {}
    for record in records:
        for trace, piece in format_module.pieces(record):
            groups.setdefault(trace, []).append(json.loads(json.dumps(piece)))  # as the spool keeps them
    return {trace: format_module.assemble(trace, pieces) for trace, pieces in groups.items()}


BLOB = [
    {"id": "o3", "trace_id": "t1", "project_id": "p", "environment": "default", "type": "GENERATION",
     "parent_observation_id": "o1", "start_time": "2026-03-01 10:00:01.000000",
     "end_time": "2026-03-01 10:00:02.500000", "name": "answer", "metadata": {},
     "provided_model_name": "gpt-4o", "usage_details": {"input": 210, "output": 12},
     "input": json.dumps([{"role": "system", "content": "Passages: …"}, {"role": "user", "content": "Hi"},
                          {"role": "assistant", "content": "Hello."}, {"role": "user", "content": ASKED}]),
     "output": json.dumps({"role": "assistant", "content": ANSWERED}), "user_id": "u-17", "session_id": "s-1",
     "tags": ["web"], "release": "1.2"},
    {"id": "o1", "trace_id": "t1", "type": "SPAN", "parent_observation_id": "", "name": "chat",
     "start_time": "2026-03-01 10:00:00.000000", "end_time": "2026-03-01 10:00:03.000000",
     "input": json.dumps({"args": [], "kwargs": {"question": ASKED}}), "output": ANSWERED, "session_id": "s-1",
     "user_id": "u-17", "metadata": {"channel": "web"}},
    {"id": "o2", "trace_id": "t1", "type": "RETRIEVER", "parent_observation_id": "o1", "name": "search",
     "start_time": "2026-03-01 10:00:00.200000", "end_time": "2026-03-01 10:00:00.400000", "input": ASKED,
     "output": json.dumps([{"page_content": FEE, "metadata": {"source": "leaving.md", "score": 0.8}},
                           {"page_content": "Tell us 10 days before.", "metadata": {"source": "moving.md"}}])},
    {"id": "s1", "timestamp": "2026-03-01 10:05:00.000000", "trace_id": "t1", "observation_id": None,
     "name": "user-feedback", "value": 0, "source": "API", "comment": "Too short.",
     "data_type": "BOOLEAN", "string_value": None},
    {"id": "s2", "timestamp": "2026-03-01 10:05:00.000000", "trace_id": "t1", "name": "faithfulness", "value": 0.93,
     "source": "EVAL", "comment": "…", "data_type": "NUMERIC"},
    {"id": "s3", "timestamp": "2026-03-01 10:06:00.000000", "trace_id": "t1", "name": "output", "value": 0,
     "source": "ANNOTATION", "data_type": "CORRECTION", "string_value": "It costs £35 on a fixed plan."},
]  # fmt: skip


def span(name: str, kind: str, span_id: str, parent: str | None, **attributes: Any) -> dict[str, Any]:
    """A row of `get_spans_dataframe`, as `to_json(orient="records", lines=True)` writes it."""
    return {
        "name": name, "span_kind": kind, "parent_id": parent, "start_time": 1772359200000, "end_time": 1772359201200,
        "status_code": "OK", "status_message": "", "events": [],
        "context.span_id": span_id, "context.trace_id": "f" * 32,
        **{f"attributes.{key.replace('__', '.')}": value for key, value in attributes.items()},
    }  # fmt: skip


DOCUMENTS = [
    {"document.content": FEE, "document.score": 0.8, "document.id": "leaving#1",
     "document.metadata": {"source": "leaving.md"}},
    {"document.content": "Tell us 10 days before.", "document.score": float("nan")},
]  # fmt: skip
SPANS = [
    span("ChatCompletion", "LLM", "c", "a", llm__model_name="gpt-4o", llm__token_count__prompt=210,
         llm__token_count__completion=12.0, llm__input_messages=[{"message.role": "user", "message.content": "Hi"},
         {"message.role": "assistant", "message.content": "Hello."},
         {"message.role": "user", "message.content": ASKED}],
         llm__output_messages=[{"message.role": "assistant", "message.content": ANSWERED}]),
    span("retrieve", "RETRIEVER", "b", "a", input__value=ASKED, retrieval__documents=DOCUMENTS),
    span("query", "CHAIN", "a", None, input__value=json.dumps({"query": ASKED}), output__value=ANSWERED,
         session__id="s-1", user__id="u-17", tag__tags=["web"], metadata={"channel": "web"},
         annotations=[{"annotation.name": "user feedback", "annotation.label": "thumbs-up",
                       "annotation.annotator_kind": "HUMAN", "annotation.explanation": "Clear."}],
         evaluations=[{"evaluation.name": "hallucination", "evaluation.score": 0.0, "evaluation.label": "factual"}]),
]  # fmt: skip


def lines(records: Iterable[Any]) -> bytes:
    return b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in records)


def written(folder: Path, records: Iterable[Any], name: str = "log.jsonl") -> str:
    (folder / name).write_bytes(lines(records))
    return str(folder / name)


def run(*args: Any, assistant: str = "bot", **options: Any) -> SimpleNamespace:
    """The command: ``code``, what it wrote to ``out`` and ``err``."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        call_command("import_turns", *map(str, args), assistant=assistant, stdout=out, stderr=err, **options)
    except SystemExit as stop:
        code = stop.code
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def turns(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [turn_item(id=f"i-{n}", conversation=f"c-{n}", **fields) for n in range(count)]


def states(settings: Any) -> list[Path]:
    return list((settings.VAR_DIR / "imports").glob("*"))


@pytest.fixture
def own_state(tmp_path: Path, settings: Any) -> Iterator[None]:
    """State files and spools of one test apart from those of others."""
    settings.VAR_DIR = tmp_path / "var"
    settings.VAR_DIR.mkdir()
    yield
    assert {path.name for path in settings.VAR_DIR.iterdir()} <= {"imports", "secrets", "log"}

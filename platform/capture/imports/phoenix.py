"""Phoenix: spans with OpenInference attributes, as a dataframe (JSONL, CSV, Parquet) or as its REST API writes them.

A dataframe has dotted columns (``attributes.llm.input_messages``, ``context.trace_id``), the API objects
(``attributes``, ``context``) whose keys are dotted; lists are lists, or numbered keys. Both become one tree first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from capture.imports.contents import answer_of, context_of, documents_of, history_of, limited, messages_of, question_of
from capture.imports.traces import Piece, slim, turn_of
from capture.imports.units import Converted, Refused
from capture.imports.values import first, fit_metadata, is_missing, moment, number, structure, text, whole

Tree = dict[str, Any]
_KINDS = {"RETRIEVER": "retriever", "RERANKER": "reranker", "LLM": "llm", "EMBEDDING": "side", "EVALUATOR": "side",
          "GUARDRAIL": "side"}  # fmt: skip
_MAX_INDEX = 1000
"""List items beyond this place are dropped: a forged index must not make a list of any length."""


def recognises(record: Mapping[str, Any]) -> bool:
    data = record.get("data")
    if isinstance(data, list) and data and isinstance(data[0], Mapping) and "data" not in data[0]:
        return recognises(data[0])
    context = record.get("context")
    if not ("context.trace_id" in record or (isinstance(context, Mapping) and "trace_id" in context)):
        return False
    return "span_kind" in record or any(str(name).startswith("attributes") for name in record)


def pieces(record: Any) -> list[tuple[str, Piece]]:
    """(trace id, piece) of a span and its annotations; of all spans, when the record is a page of the API.

    Raises:
        Refused: not an object, no span, or a span without a trace id.
    """
    if not isinstance(record, Mapping):
        raise Refused("not an object")
    data = record.get("data")
    if isinstance(data, list) and "context" not in record:
        return [found for span in data for found in pieces(span)]
    tree = nested(record)
    context = _at(tree, "context")
    trace = text(context.get("trace_id"))
    if not trace:
        raise Refused("a span of no trace")
    attributes = _at(tree, "attributes")
    span = text(context.get("span_id"))
    return [(trace, _step(tree, attributes, span)), *((trace, score) for score in _annotations(attributes, span))]


def assemble(trace: str, found: list[Piece]) -> Converted:
    """Raises as `traces.turn_of`."""
    return turn_of(trace, found, prefix="phoenix")


def nested(record: Mapping[str, Any], *, unpack: bool = True) -> Tree:
    """Dotted names as a tree; numbers in them are places of a list. What is missing is left out.

    A name that is both a value and a branch keeps the branch, and the value under "".

    Args:
        unpack: read texts that hold a list or an object, as the cells of a CSV file do.
    """
    tree: Tree = {}
    for name, value in record.items():
        if is_missing(value):
            continue
        # Input and output are read as what they are, also where they look like a list.
        packed = unpack and not str(name).endswith(".value")
        inner_value = _nested_value(structure(value) if packed else value)
        branch = tree
        *parents, last = str(name).split(".")[:12]
        for part in parents:
            inner = branch.get(part)
            if not isinstance(inner, dict):
                inner = branch[part] = {} if inner is None else {"": inner}
            branch = inner
        old = branch.get(last)
        if isinstance(old, dict) and not isinstance(inner_value, dict):
            old[""] = inner_value
        elif isinstance(old, dict):
            old.update(inner_value)
        else:
            branch[last] = inner_value
    return {name: _lists(value) for name, value in tree.items()}


def _nested_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return nested(value, unpack=False)
    if isinstance(value, list | tuple):
        return [_nested_value(part) for part in value]
    return value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdecimal() and name.isascii() and len(name) <= 6 for name in value):
        return [_lists(value[name]) for name in sorted(value, key=int) if int(name) < _MAX_INDEX]
    return {name: _lists(inner) for name, inner in value.items()}


def _at(tree: Tree, *path: str) -> Tree:
    """The branch at a path; an empty one when there is none."""
    found: Any = tree
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _value(tree: Tree, *path: str) -> Any:
    found = _at(tree, *path[:-1]).get(path[-1])
    return found.get("") if isinstance(found, Mapping) and "" in found else found


def _step(tree: Tree, attributes: Tree, span: str) -> Piece:
    given = text(first(tree, "span_kind")) or text(_value(attributes, "openinference", "span", "kind"))
    kind = _KINDS.get(given.upper(), "other")
    notes: list[str] = []
    metadata = structure(_value(attributes, "metadata"))
    return slim(
        {
            "what": "step",
            "id": span,
            "parent": text(tree.get("parent_id")),
            "kind": kind,
            "start": moment(tree.get("start_time")),
            "end": moment(tree.get("end_time")),
            **_exchange(attributes, kind),
            "documents": _documents(attributes, kind, notes),
            "model": text(_value(attributes, "llm", "model_name")),
            "prompt_tokens": whole(_value(attributes, "llm", "token_count", "prompt")),
            "completion_tokens": whole(_value(attributes, "llm", "token_count", "completion")),
            "session": text(_value(attributes, "session", "id")),
            "user": text(_value(attributes, "user", "id")),
            "tags": structure(_value(attributes, "tag", "tags")),
            "metadata": fit_metadata(metadata, notes) if isinstance(metadata, Mapping) else None,
        }
    )


def _exchange(attributes: Tree, kind: str) -> Piece:
    """Question and answer of a span: of a model's call from its messages, else from its input and output."""
    notes: list[str] = []
    asked, answered = _value(attributes, "input", "value"), _value(attributes, "output", "value")
    messages = messages_of(_value(attributes, "llm", "input_messages")) or messages_of(asked) or []
    last = max((place for place, m in enumerate(messages) if m["role"] == "user"), default=0)
    if kind in ("retriever", "reranker"):
        return {"asked": question_of(asked) or text(_value(attributes, "reranker", "query"))}
    spoken = messages_of(_value(attributes, "llm", "output_messages"))
    return {
        "asked": question_of(messages) or question_of(asked),
        "answered": answer_of(spoken) if spoken else answer_of(answered),
        "history": history_of(messages[:last], notes, system=False),
    }


def _documents(attributes: Tree, kind: str, notes: list[str]) -> list[dict[str, Any]]:
    """In the order of the span, which is rank order; without document attributes what the output holds."""
    path = {"retriever": ("retrieval", "documents"), "reranker": ("reranker", "output_documents")}.get(kind)
    if path is None:
        return []
    given = structure(_value(attributes, *path))
    found = [_document(part, notes) for part in given] if isinstance(given, list) else []
    contexts = limited([context for context in found if context], notes)
    return contexts or documents_of(_value(attributes, "output", "value"), notes)


def _document(given: Any, notes: list[str]) -> dict[str, Any] | None:
    inner = given.get("document") if isinstance(given, Mapping) else None
    if not isinstance(inner, Mapping):
        return context_of(given, notes)
    metadata = structure(inner.get("metadata"))
    body = {"content": inner.get("content"), "id": inner.get("id"), "score": inner.get("score")}
    return context_of({**body, "metadata": metadata if isinstance(metadata, Mapping) else None}, notes)


def _annotations(attributes: Tree, span: str) -> Iterator[Piece]:
    """Annotations and evaluations that a span carries; of spans, of the trace and of the session alike."""
    for path, word in ((), "annotation"), ((), "evaluation"), (("trace",), "annotation"), (("trace",), "evaluation"):
        given = structure(_value(attributes, *path, f"{word}s"))
        for place, part in enumerate(given if isinstance(given, list) else []):
            inner = part.get(word) if isinstance(part, Mapping) else None
            if isinstance(inner, Mapping) and text(inner.get("name")):
                name = text(inner["name"])
                yield slim(
                    {
                        "what": "score",
                        "id": text(inner.get("identifier")) or f"{span}:{name}:{place}",
                        "name": name,
                        "value": number(inner.get("score")),
                        "label": text(inner.get("label")),
                        "comment": text(inner.get("explanation")),
                        "source": text(inner.get("annotator_kind")) or ("LLM" if word == "evaluation" else ""),
                        "time": moment(first(inner, "created_at", "updated_at", "timestamp")),
                    }
                )

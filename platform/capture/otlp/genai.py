"""Spans with the GenAI attributes of OpenTelemetry as pieces of a trace.

The conventions have moved often. Messages are read from ``gen_ai.input.messages`` and ``gen_ai.output.messages``
(attributes, or of an event), from the older events with one message or one list each, and from numbered attributes
(``gen_ai.prompt.0.content``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from capture.imports.contents import answer_of, context_of, history_of, limited, messages_of, question_of
from capture.imports.phoenix import nested
from capture.imports.traces import Piece, slim
from capture.imports.values import first, number, structure, text, whole
from capture.otlp.spans import Span

_KINDS = {
    "chat": "llm", "text_completion": "llm", "generate_content": "llm", "retrieval": "retriever",
    "embeddings": "side", "execute_tool": "side",
}  # fmt: skip
EVALUATION = "gen_ai.evaluation.result"
_FROM_PEOPLE = ("user", "human", "feedback", "thumb")
NO_TEXT = "retrieved documents without text were left out"


def is_genai(span: Span) -> bool:
    return any(name.startswith("gen_ai.") for name in span.get("attributes", ())) or bool(span.get("events"))


def step(span: Span, notes: list[str]) -> Piece:
    """What the span says of an exchange, without its place in the tree; "kind" only when it is known."""
    attributes = span.get("attributes", {})
    kind = _KINDS.get(text(attributes.get("gen_ai.operation.name")))
    if kind is None and first(attributes, "gen_ai.response.model", "gen_ai.request.model"):
        kind = "llm"
    facts = {
        "kind": kind,
        "session": text(attributes.get("gen_ai.conversation.id")),
        "model": text(first(attributes, "gen_ai.response.model", "gen_ai.request.model")),
    }
    if kind == "retriever":
        query = text(attributes.get("gen_ai.retrieval.query.text"))
        return slim({**facts, "asked": query, "documents": _documents(attributes, notes)})
    if kind == "side":
        return slim(facts)
    asked, answered = _messages(span)
    last = max((place for place, message in enumerate(asked) if message["role"] == "user"), default=0)
    return slim(
        {
            **facts,
            "asked": question_of(asked),
            "answered": answer_of(answered),
            "history": history_of(asked[:last], notes, system=False),
            "prompt_tokens": whole(first(attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")),
            "completion_tokens": whole(
                first(attributes, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
            ),
        }
    )


def scores(span: Span) -> Iterator[Piece]:
    """Evaluations that the span carries as events.

    The convention does not say who judged. A name that speaks of users is taken as theirs, anything else as a judge
    model's, which is no feedback.
    """
    for place, event in enumerate(span.get("events", ())):
        given = event["attributes"]
        name = text(given.get("gen_ai.evaluation.name"))
        if event["name"] == EVALUATION and name:
            people = any(part in name.lower() for part in _FROM_PEOPLE)
            yield slim(
                {
                    "what": "score",
                    "id": f"{span['id']}:{name}:event{place}",
                    "name": name,
                    "value": number(given.get("gen_ai.evaluation.score.value")),
                    "label": text(given.get("gen_ai.evaluation.score.label")),
                    "comment": text(given.get("gen_ai.evaluation.explanation")),
                    "source": "HUMAN" if people else "EVAL",
                }
            )


def _documents(attributes: Mapping[str, Any], notes: list[str]) -> list[dict[str, Any]]:
    """In rank order. The convention asks for id and score only; a document without its text is no passage."""
    given = structure(attributes.get("gen_ai.retrieval.documents"))
    found = [context_of(part, notes) for part in given if isinstance(part, Mapping)] if isinstance(given, list) else []
    if None in found:
        notes.append(NO_TEXT)
    return limited([context for context in found if context], notes)


def _messages(span: Span) -> tuple[list[Piece], list[Piece]]:
    """(what went into the model, what came out), each as [{role, content}]."""
    holders = [span.get("attributes", {}), *(event["attributes"] for event in span.get("events", ()))]
    asked = _first_list(holders, "gen_ai.input.messages", "gen_ai.prompt")
    answered = _first_list(holders, "gen_ai.output.messages", "gen_ai.completion")
    asked_by_event, answered_by_event = _by_event(span)
    return asked or asked_by_event, answered or answered_by_event


def _first_list(holders: list[Mapping[str, Any]], *names: str) -> list[Piece]:
    for holder in holders:
        for name in names:
            given = structure(holder.get(name))
            if given is None:
                given = _numbered(holder, name)
            if isinstance(given, list) and (found := messages_of([_spoken(part) for part in given])):
                return found
    return []


def _numbered(holder: Mapping[str, Any], name: str) -> Any:
    """``gen_ai.prompt.0.role``, ``gen_ai.prompt.0.content``, … as a list."""
    parts = {key: value for key, value in holder.items() if key.startswith(f"{name}.")}
    found: Any = nested(parts, unpack=False)
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _by_event(span: Span) -> tuple[list[Piece], list[Piece]]:
    asked: list[Any] = []
    answered: list[Any] = []
    for event in span.get("events", ()):
        given = {name: structure(value) for name, value in event["attributes"].items()}
        role = event["name"].removeprefix("gen_ai.").removesuffix(".message")
        if event["name"] == "gen_ai.choice":
            inner = given.get("message", given.get("content"))
            body = inner if isinstance(inner, Mapping) else {"content": inner}
            answered.append({"role": "assistant", **body})
        elif role in ("system", "user", "assistant", "tool"):
            asked.append({"content": "", **given, "role": role})
    return messages_of([_spoken(m) for m in asked]) or [], messages_of([_spoken(m) for m in answered]) or []


def _spoken(message: Any) -> Any:
    """The message with its text alone: no reasoning, no calls of tools."""
    if not isinstance(message, Mapping):
        return message
    parts = message.get("parts")
    if isinstance(parts, list):
        texts = [
            text(first(part, "content", "text"))
            for part in parts
            if isinstance(part, Mapping) and part.get("type", "text") == "text"
        ]
        return {"role": message.get("role"), "content": "\n".join(filter(None, texts))}
    return {**message, "content": message.get("content") or ""}

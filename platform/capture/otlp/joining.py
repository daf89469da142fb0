"""The spans of one trace as one turn with its feedback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from capture.imports import phoenix
from capture.imports.traces import MAX_PIECES, Piece, slim, turn_of
from capture.imports.units import Converted, Refused
from capture.imports.values import first, milliseconds, text
from capture.otlp import genai
from capture.otlp.spans import Span

PREFIX = "otlp"
NOTHING = "nothing of a conversation in the trace"
_SAYS = ("asked", "answered", "documents", "history")
_SCORES = ("annotations", "evaluations", "trace.annotations", "trace.evaluations")


def scores_alone(span: Span) -> Span | None:
    """What is left of a span whose trace has become a turn already: its annotations and evaluations, if any."""
    attributes = {name: value for name, value in span.get("attributes", {}).items() if name.startswith(_SCORES)}
    events = [event for event in span.get("events", ()) if event["name"] == genai.EVALUATION]
    if not attributes and not events:
        return None
    left: Span = {"trace": span["trace"], "id": span["id"], "attributes": attributes, "events": events}
    return {**left, **slim({"end": span.get("end")})}


def converted(trace: str, spans: Iterable[Span]) -> Converted:
    """One turn, named like the trace; with annotations alone, only feedback.

    A span that came twice counts once. Spans that say nothing (of a web framework, a database) are only links between
    those that do, so that the outermost one that says something is where question and answer are read.

    Raises:
        Refused: no question or no answer; `NOTHING` when no span speaks of a conversation at all.
    """
    unique: dict[str, Span] = {}
    for span in spans:
        unique.setdefault(span["id"], span)
    notes: list[str] = []
    steps: list[Piece] = []
    scores: list[Piece] = []
    for span in list(unique.values())[:MAX_PIECES]:
        for piece in _pieces(trace, span, notes):
            (scores if piece["what"] == "score" else steps).append(piece)
    if any(map(_speaks, steps)):
        parents = _speaking_parents(steps)
        linked = [{**step, "parent": parents[step["id"]]} for step in steps]
        given = [_trace(linked, unique), *linked, *scores]
    elif scores:
        given = scores
    else:
        raise Refused(NOTHING)
    found = turn_of(trace, given, prefix=PREFIX)
    found.notes = list(dict.fromkeys([*notes, *found.notes]))
    return found


def _pieces(trace: str, span: Span, notes: list[str]) -> Iterator[Piece]:
    """Both dialects may stand on one span; what OpenInference says goes before."""
    attributes = span.get("attributes", {})
    record = {
        "context": {"trace_id": trace, "span_id": span["id"]},
        "parent_id": span.get("parent", ""),
        "start_time": span.get("start"),
        "end_time": span.get("end"),
        "attributes": attributes,
    }
    for _, piece in phoenix.pieces(record):
        if piece["what"] == "score":
            # An identifier is unique on its span only; the score was set while the span lasted.
            name = f"{trace}:{span['id']}:{piece['name']}:{piece['id']}"
            yield {**slim({"time": span.get("end")}), **piece, "id": name}
            continue
        other = genai.step(span, notes) if genai.is_genai(span) else {}
        if other.get("kind") and "openinference.span.kind" not in attributes:
            piece["kind"] = other["kind"]
        model = first(attributes, "llm.response.model_name", "llm.request.model_name")
        yield {**slim({"model": text(model)}), **other, **piece}
    for score in genai.scores(span):
        yield {**slim({"time": span.get("end")}), **score, "id": f"{trace}:{score['id']}"}


def _speaking_parents(steps: list[Piece]) -> dict[str, str]:
    """{step: the next step above it that says something}, "" where there is none (parents may be missing, or form a
    circle). Every step is passed once, however long the chains of silent ones are."""
    by_id = {step["id"]: step for step in steps}
    nearest: dict[str, str] = {step["id"]: step["id"] for step in steps if _speaks(step)}
    found: dict[str, str] = {}
    for step in steps:
        path: dict[str, None] = {}
        at = step.get("parent", "")
        while at in by_id and at not in nearest and at not in path:
            path[at] = None
            at = by_id[at].get("parent", "")
        nearest.update(dict.fromkeys(path, nearest.get(at, "")))
        parent = nearest.get(step.get("parent", ""), "")
        found[step["id"]] = "" if parent == step["id"] else parent
    return found


def _speaks(step: Piece) -> bool:
    return any(step.get(name) for name in _SAYS)


def _trace(steps: list[Piece], spans: dict[str, Span]) -> Piece:
    """What is known of the trace as a whole; ``steps`` with the next step that says something as parent.

    Where several steps are outermost (the root is missing, or says nothing), the first of them asks and the last of
    them answers: between a rewriting of the question and the answer, that is the pair.
    """
    outer = [
        step
        for step in sorted(steps, key=lambda step: (step.get("start", ""), step["id"]))
        if step["kind"] in ("other", "llm") and _speaks(step) and not step["parent"]
    ]
    asked = next((step["asked"] for step in outer if step.get("asked")), None)
    answered = next((step["answered"] for step in reversed(outer) if step.get("answered")), None)
    root = next((span for span in spans.values() if not span.get("parent")), None)
    start, end = (root or {}).get("start"), (root or {}).get("end")
    speaker = root or next(iter(spans.values()))
    metadata: dict[str, Any] = next((step["metadata"] for step in outer if step.get("metadata")), {})
    service = slim({"service": speaker.get("service"), "service_version": speaker.get("version")})
    return slim(
        {
            "what": "trace",
            "asked": asked,
            "answered": answered,
            "time": start,
            "latency_ms": milliseconds(start, end),
            "metadata": {**service, **metadata},
        }
    )

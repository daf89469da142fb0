"""A trace as a turn: the same for every tracing system, once its rows are pieces.

A piece is a small JSON object, so that it can wait on disk until the rest of its trace has come:

- step: {"what": "step", "id", "parent", "kind", "start", "end", "asked", "answered", "history", "documents", "model",
  "prompt_tokens", "completion_tokens", …facts}, with kind retriever, reranker, llm or other
- trace: {"what": "trace", "asked", "answered", "history", …facts}: what is known of the trace as a whole
- score: {"what": "score", and the fields of `scores.Score`}

and facts are "session", "user", "tags", "metadata", "name", "time", "latency_ms". Missing ones are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from capture.imports.contents import limited
from capture.imports.scores import Score, feedback_of
from capture.imports.units import Converted, Payload, Refused
from capture.imports.values import fit_id, fit_metadata, fit_name, fit_tags, milliseconds

Piece = dict[str, Any]
MAX_PIECES = 5000
"""Of one trace that are looked at."""
_SCORE = {field.name for field in fields(Score)}


def slim(piece: Piece) -> Piece:
    """Without what is missing."""
    return {key: value for key, value in piece.items() if value not in (None, "", [], {})}


def turn_of(trace: str, pieces: Sequence[Piece], *, prefix: str) -> Converted:
    """The turn of a trace, with its passages in rank order, and the feedback that its scores are.

    Question and answer come from the trace, else from its outermost step, else from its last call of a model. Passages
    are those of its last reranker, else those of its retrievers in order of time. With scores alone, only feedback.

    Raises:
        Refused: no question or no answer in it.
    """
    converted = Converted()
    if len(pieces) > MAX_PIECES:
        converted.notes.append(f"rows of a trace after the first {MAX_PIECES} were left out")
    kept = pieces[:MAX_PIECES]
    turn_id = fit_id(trace, prefix=prefix)
    steps = sorted((p for p in kept if p["what"] == "step"), key=lambda p: (p.get("start", ""), p.get("id", "")))
    traces = [piece for piece in kept if piece["what"] == "trace"]
    scores = {str(p.get("id", "")): p for p in kept if p["what"] == "score"}
    if steps or traces:
        converted.turns = [_turn(turn_id, traces, steps, prefix, converted.notes)]
    # A score without a time was given at the earliest when the turn was over, and seldom much later.
    times = [turn["time"] for turn in converted.turns if turn.get("time")]
    for name, score in sorted(scores.items()):
        least = {"id": name or trace, "name": "", "time": next(iter(times), "")}  # names that are no text are left out
        given = Score(**{**least, **{k: v for k, v in score.items() if k in _SCORE}})
        converted.feedback += feedback_of(given, turn=turn_id, prefix=prefix, notes=converted.notes)
    return converted


def _turn(turn_id: str, traces: list[Piece], steps: list[Piece], prefix: str, notes: list[str]) -> Payload:
    outer = traces + _roots(steps)
    calls = [step for step in steps if step.get("kind") == "llm"]
    sources = [*outer, *reversed(calls), *steps]
    asked = next((piece for piece in sources if piece.get("asked")), None)
    answered = next((piece for piece in [*outer, *reversed(calls), *reversed(steps)] if piece.get("answered")), None)
    if asked is None:
        raise Refused("no question in the trace")
    if answered is None:
        raise Refused("no answer in the trace")
    call = calls[-1] if calls else {}
    history: list[Any] = next((p["history"] for p in [*outer, *reversed(calls)] if p.get("history")), [])
    metadata = fit_metadata(_first(outer, "metadata") or {}, notes)
    if user := _first([*outer, *steps], "user"):
        metadata["user"] = str(user)[:500]
    turn: Payload = {
        "question": asked["asked"],
        "response": answered["answered"],
        "history": history,
        "contexts": _contexts(steps, notes),
        "model": fit_name(call.get("model") or _first(outer, "model")),
        "prompt_tokens": call.get("prompt_tokens"),
        "completion_tokens": call.get("completion_tokens"),
        "time": _first(outer, "time", "start") or _first(steps, "start"),
        "latency_ms": _latency(outer, steps),
        "tags": fit_tags(_first([*outer, *steps], "tags"), notes),
        "conversation": fit_id(_first([*outer, *steps], "session"), prefix=prefix),
        "metadata": metadata,
    }
    return {"id": turn_id, **slim(turn)}


def _roots(steps: list[Piece]) -> list[Piece]:
    """Steps whose parent is not there: the outermost, earliest first."""
    ids = {step.get("id") for step in steps}
    return [step for step in steps if step.get("parent") not in ids and step.get("kind") in ("other", "llm")]


def _contexts(steps: list[Piece], notes: list[str]) -> list[dict[str, Any]]:
    reranked = [step for step in steps if step.get("kind") == "reranker" and step.get("documents")]
    chosen = reranked[-1:] or [step for step in steps if step.get("kind") == "retriever"]
    found: dict[str, dict[str, Any]] = {}
    for context in (context for step in chosen for context in step.get("documents", [])):
        found.setdefault(context["text"], context)
    return limited(list(found.values()), notes)


def _latency(outer: list[Piece], steps: list[Piece]) -> float | None:
    given = _first(outer, "latency_ms")
    if given is not None:
        return float(given)
    starts = [step["start"] for step in steps if step.get("start")]
    ends = [step["end"] for step in steps if step.get("end")]
    return milliseconds(min(starts), max(ends)) if starts and ends else None


def _first(pieces: Iterable[Piece], *names: str) -> Any:
    return next((piece[name] for piece in pieces for name in names if piece.get(name) not in (None, "", [], {})), None)

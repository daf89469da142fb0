"""Scores and annotations of other systems as feedback.

Feedback is what people thought of a turn. A judge model's score is none, and a number without a known scale says
nothing that could be compared: both are left out, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from capture.imports.units import Payload
from capture.imports.values import fit_id
from capture.payloads import MAX_QUESTION, credible_moment

_UP = {
    "1", "up", "thumbs_up", "thumbsup", "thumb_up", "👍", "+1", "yes", "true", "good", "positive", "like", "liked",
    "correct", "helpful", "accepted", "pos",
}  # fmt: skip
_DOWN = {
    "0", "-1", "down", "thumbs_down", "thumbsdown", "thumb_down", "👎", "no", "false", "bad", "negative", "dislike",
    "disliked", "incorrect", "wrong", "unhelpful", "not_helpful", "rejected", "neg",
}  # fmt: skip
_RATING_NAMES = ("rating", "stars", "star", "csat")
_THUMB_NAMES = ("feedback", "thumb", "vote", "like", "helpful", "satisf", "user", "sentiment", "correct", "quality")
_MACHINES = {"eval", "llm", "code"}
NOT_HUMAN = "scores of a judge model or a program were left out: feedback is what people thought"
NO_SCALE = "scores that are no thumb, rating, correction or comment were left out"


@dataclass(frozen=True)
class Score:
    """One score. ``source``: ANNOTATION, API, EVAL (Langfuse) or HUMAN, LLM, CODE (Phoenix). ``time``: when it was
    given, in ISO 8601; empty where nothing says."""

    id: str
    name: str
    value: float | None = None
    label: str = ""
    kind: str = ""
    comment: str = ""
    source: str = ""
    time: str = ""


def thumb_of(value: float | None, label: str) -> int | None:
    """1 or -1 where it is clearly one. 0 counts as down: that is how thumbs are stored beside 1."""
    word = label.strip().lower().replace(" ", "_").replace("-", "_")
    if word in _UP:
        return 1
    if word in _DOWN or label.strip() in _DOWN:
        return -1
    if value in (1, -1, 0) and not word:
        return 1 if value == 1 else -1
    return None


def feedback_of(score: Score, *, turn: str, prefix: str, notes: list[str]) -> list[Payload]:
    """At most two pieces of feedback: the score, and what was written with it."""
    if score.source.lower() in _MACHINES:
        notes.append(NOT_HUMAN)
        return []
    found: list[Payload] = []
    said = _opinion(score)
    if said:
        found.append(said)
    comment = score.comment.strip()
    if comment and comment != said.get("text"):
        found.append({"kind": "comment", "text": comment})
    if not found:
        notes.append(NO_SCALE)
    whole: list[Payload] = []
    for payload in found:
        if len(payload.get("text", "")) > MAX_QUESTION:
            notes.append("comments and corrections over 20,000 characters were left out")
            continue
        given = f"{prefix}:{score.id}:{payload['kind']}"
        when = {"time": score.time} if is_credible(score.time) else {}
        whole.append({"turn": turn, "id": fit_id(given, prefix=prefix, limit=120), **payload, **when})
    return whole


def is_credible(time: str) -> bool:
    """Whether the log API takes it: a thumb is not worth less because a clock was wrong."""
    try:
        credible_moment(datetime.fromisoformat(time))
    except (ValueError, OverflowError):
        return False
    return True


def _opinion(score: Score) -> dict[str, Any]:
    name, kind = score.name.lower(), score.kind.upper()
    label = score.label.strip()
    if kind == "CORRECTION" or (name in ("correction", "output", "expected_output") and label):
        return {"kind": "correction", "text": label} if label else {}
    if name in ("comment", "note", "free_text") and label:
        return {"kind": "comment", "text": label}
    if any(part in name for part in _RATING_NAMES):
        value = score.value
        return {"kind": "rating", "value": value} if value is not None and 1 <= value <= 5 else {}
    if kind == "BOOLEAN" or label or any(part in name for part in _THUMB_NAMES):
        thumb = thumb_of(score.value, "" if kind == "BOOLEAN" else label)
        return {"kind": "thumb", "value": thumb} if thumb is not None else {}
    return {}

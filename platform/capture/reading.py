"""Turns as the API and the export show them."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Prefetch
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive, make_aware

from assistants.errors import ApiError, FieldError
from assistants.models import Assistant
from capture.models import Feedback, Turn, TurnQuerySet
from capture.vault import stored_id

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
EXPORT_LIMIT = 10_000
_FEEDBACK = ("up", "down", "any", "none")
_FILTERS = (
    "adapter", "conversation", "cursor", "declined", "feedback", "limit", "model", "q", "since", "tag", "until",
)  # fmt: skip


def readable(turns: TurnQuerySet) -> TurnQuerySet:
    """With everything that `turn_json` reads: four queries in all, however many turns."""
    return (
        turns.select_related("conversation")
        .defer("embedding", "words", "conversation__entities")
        .with_contexts()
        .prefetch_related(Prefetch("feedback", queryset=Feedback.objects.order_by("received_at")))
    )


def turn_json(turn: Turn) -> dict[str, Any]:
    """One turn with its contexts, provenance and feedback; ``id`` is ours, ``client_id`` the frontend's."""
    return {
        "id": str(turn.pk),
        "client_id": turn.client_id,
        "conversation": turn.conversation.external_id,
        "time": turn.asked_at.isoformat(),
        "question": turn.question,
        "history": turn.history,
        "contexts": [
            {
                "rank": retrieval.rank,
                "title": retrieval.passage.title,
                "source": retrieval.passage.source,
                "text": retrieval.passage.text,
                "score": retrieval.score,
                "metadata": retrieval.passage.metadata,
                "evidence": retrieval.evidence,
            }
            for retrieval in turn.retrievals.all()
        ],
        "response": turn.response,
        "citations": turn.citations,
        "declined": turn.declined,
        "model": turn.model,
        "adapter": turn.adapter,
        "prompt_digest": turn.prompt_digest,
        "retrieval_config": turn.retrieval_config,
        "policy_digest": turn.policy_digest,
        "latency_ms": turn.latency_ms,
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "tags": turn.tags,
        "metadata": turn.metadata,
        "masked": turn.pii,
        "feedback": [
            {"kind": f.kind, "value": f.value, "text": f.text, "received_at": f.received_at.isoformat()}
            for f in turn.feedback.all()
        ],
    }


def json_lines(turns: Iterable[Turn]) -> Iterator[str]:
    """One turn per line."""
    encoder = DjangoJSONEncoder(ensure_ascii=False)
    for turn in turns:
        yield encoder.encode(turn_json(turn)) + "\n"


@dataclass(frozen=True)
class Page:
    turns: list[Turn]
    next: str | None


def list_turns(*, assistant: Assistant, query: Mapping[str, str]) -> Page:
    """A page of turns, newest first, as the query parameters of the API ask for it.

    Raises:
        assistants.errors.ApiError: 422, a parameter is unknown or has a bad value.
    """
    unknown = sorted(set(query) - set(_FILTERS))
    if unknown:
        raise _bad(unknown[0][:64], f"There is no such parameter; choose from {', '.join(_FILTERS)}")
    limit = _limit(query.get("limit"))
    turns = _filtered(Turn.objects.of(assistant), query)
    if cursor := query.get("cursor"):
        turns = turns.older_than(*_read_cursor(cursor))
    found = list(readable(turns.newest_first())[: limit + 1])
    more = len(found) > limit
    return Page(found[:limit], _write_cursor(found[limit - 1]) if more else None)


def find_turn(*, assistant: Assistant, name: str) -> Turn | None:
    """By our id, or by the client's."""
    turns = readable(Turn.objects.of(assistant))
    try:
        found = turns.filter(pk=uuid.UUID(name)).first()
    except ValueError:
        found = None
    return found or turns.filter(client_id=stored_id(name)).first()


def _filtered(turns: TurnQuerySet, query: Mapping[str, str]) -> TurnQuerySet:
    for name in ("adapter", "model"):
        if name in query:
            turns = turns.filter(**{name: _plain(name, query[name])})
    if "conversation" in query:
        turns = turns.filter(conversation__external_id=stored_id(_plain("conversation", query["conversation"])))
    if "tag" in query:
        turns = turns.filter(tags__contains=[_plain("tag", query["tag"])])
    if "declined" in query:
        if query["declined"] not in ("true", "false"):
            raise _bad("declined", "must be true or false")
        turns = turns.filter(declined=query["declined"] == "true")
    if "feedback" in query:
        if query["feedback"] not in _FEEDBACK:
            raise _bad("feedback", f"must be one of {', '.join(_FEEDBACK)}")
        turns = turns.with_feedback(query["feedback"])
    if "since" in query:
        turns = turns.filter(asked_at__gte=_moment("since", query["since"]))
    if "until" in query:
        turns = turns.filter(asked_at__lt=_moment("until", query["until"]))
    if words := query.get("q"):
        turns = turns.matching(_plain("q", words))
    return turns


def _plain(name: str, value: str) -> str:
    if "\x00" in value or len(value) > 500:
        raise _bad(name, "must be at most 500 characters, without NUL")
    return value


def _limit(value: str | None) -> int:
    if value is None:
        return DEFAULT_LIMIT
    if not (value.isascii() and value.isdigit() and len(value) < 6 and 1 <= int(value) <= MAX_LIMIT):
        raise _bad("limit", f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(value)


def _moment(name: str, value: str) -> datetime:
    try:
        found = parse_datetime(value)
        if found is None and (day := parse_date(value)) is not None:
            found = datetime(day.year, day.month, day.day)
        if found is not None:
            return make_aware(found) if is_naive(found) else found
    except (ValueError, OverflowError):
        pass
    raise _bad(name, "must be a date or a time in ISO 8601, such as 2026-01-31T12:00:00Z")


def _write_cursor(turn: Turn) -> str:
    return base64.urlsafe_b64encode(f"{turn.asked_at.isoformat()}|{turn.pk}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        moment, _, pk = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        return datetime.fromisoformat(moment), uuid.UUID(pk)
    except (ValueError, binascii.Error):
        raise _bad("cursor", "must be the value of next in the page before") from None


def _bad(field: str, message: str) -> ApiError:
    error: FieldError = {"field": field, "message": message}
    return ApiError(422, detail=f"{field}: {message}", errors=[error])

"""Turns as the API and the export show them."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.timezone import is_naive

from assistants.models import Assistant
from capture.likeness import MAX_NEAREST, Near, likeness_of, nearest
from capture.models import Feedback, Passage, Retrieval, Turn, TurnQuerySet
from capture.turn_filters import Query, bad, one, read_filters, whole_number
from capture.vault import stored_id

DEFAULT_LIMIT = 50
MAX_LIMIT = MAX_NEAREST
NEAR = 5_000
"""Turns that are looked through in the order of time before what matches is collected."""


def readable(turns: TurnQuerySet) -> TurnQuerySet:
    """With everything of the turns themselves that `turn_rows` reads."""
    return turns.select_related("conversation").defer("embedding", "words", "conversation__entities")


def turn_rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns with their contexts, provenance and feedback, in the same order; ``id`` is ours, ``client_id`` the
    frontend's. Three queries, however many turns; ``turns`` from `readable`, or each costs more."""
    contexts = _contexts_of(turns)
    feedback: dict[uuid.UUID, list[dict[str, Any]]] = {}
    for f in Feedback.objects.filter(turn__in=[turn.pk for turn in turns]).order_by("given_at", "pk"):
        feedback.setdefault(f.turn_id, []).append(
            {
                "kind": f.kind, "metric": f.metric, "value": f.shown_value, "text": f.text,
                "time": f.given_at.isoformat(), "received_at": f.received_at.isoformat(),
            }
        )  # fmt: skip
    return [_row(turn, contexts.get(turn.pk, []), feedback.get(turn.pk, [])) for turn in turns]


def turn_json(turn: Turn) -> dict[str, Any]:
    """As `turn_rows`, of one."""
    return turn_rows([turn])[0]


def _contexts_of(turns: Sequence[Turn]) -> dict[uuid.UUID, list[dict[str, Any]]]:
    """As values, not as objects of the ORM, which took most of a page's time: five contexts stand behind each turn. And
    passages by themselves: the same few stand behind many turns, and joined they would come as often."""
    retrievals = list(
        Retrieval.objects.filter(turn__in=[turn.pk for turn in turns])
        .order_by("turn", "rank")
        .values_list("turn_id", "rank", "score", "own_source", "own_metadata", "evidence", "passage_id")
    )
    passages = {
        pk: rest
        for pk, *rest in Passage.objects.filter(pk__in={row[-1] for row in retrievals})
        .order_by()
        .values_list("pk", "title", "source", "text", "metadata")
    }
    found: dict[uuid.UUID, list[dict[str, Any]]] = {}
    for turn, rank, score, own_source, own_metadata, evidence, passage in retrievals:
        if passage not in passages:  # erased since the line above
            continue
        title, source, text, metadata = passages[passage]
        found.setdefault(turn, []).append(
            {
                "rank": rank,
                "title": title,
                "source": source if own_source is None else own_source,  # as `Retrieval.source`
                "text": text,
                "score": score,
                "metadata": metadata if own_metadata is None else own_metadata,
                "evidence": evidence,
            }
        )
    return found


def _row(turn: Turn, contexts: list[dict[str, Any]], feedback: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": str(turn.pk),
        "client_id": turn.client_id,
        "conversation": turn.conversation.external_id,
        "time": turn.asked_at.isoformat(),
        "question": turn.question,
        "history": turn.history,
        "contexts": contexts,
        "response": turn.response,
        "citations": turn.citations,
        "declined": turn.declined,
        "model": turn.model,
        "adapter": turn.adapter,
        "prompt_digest": turn.prompt_digest,
        "retrieval_config": turn.retrieval_config,
        "withheld": turn.withheld,
        "policy_digest": turn.policy_digest,
        "client": turn.client,
        "outcome": turn.outcome,
        "latency_ms": turn.latency_ms,
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        "tags": turn.tags,
        "metadata": turn.metadata,
        "masked": turn.pii,
        "feedback": feedback,
    }


@dataclass(frozen=True)
class Page:
    """``similarity`` of each turn where the list was searched by meaning."""

    turns: list[Turn]
    next: str | None = None
    similarity: Mapping[uuid.UUID, float] | None = None

    def rows(self) -> list[dict[str, Any]]:
        rows = turn_rows(self.turns)
        if self.similarity is not None:
            for turn, row in zip(self.turns, rows, strict=True):
                row["similarity"] = self.similarity[turn.pk]
        return rows


def list_turns(*, assistant: Assistant, query: Query) -> Page:
    """A page of turns, newest first, as the query parameters of the API ask for it; with ``like`` the nearest ones.

    Raises:
        assistants.errors.ApiError: 422, a parameter is unknown or has a bad value; 503, ``like`` needs the engine.
    """
    filters = read_filters(query, also=("cursor", "like", "limit"))
    limit = whole_number("limit", one(query, "limit"), default=DEFAULT_LIMIT, maximum=MAX_LIMIT) or DEFAULT_LIMIT
    turns = filters.apply(Turn.objects.of(assistant))
    cursor, like = one(query, "cursor"), one(query, "like")
    if like is not None:
        if cursor:
            raise bad("cursor", f"has no meaning with like, which gives the nearest turns, at most {MAX_LIMIT}")
        likeness = likeness_of(like, among=Turn.objects.of(assistant), glossary=assistant.glossary)
        return _nearest_page(nearest(turns, likeness, limit=limit))
    all_turns = Turn.objects.of(assistant)
    if cursor:
        place = _read_cursor(cursor)
        turns, all_turns = turns.older_than(*place), all_turns.older_than(*place)
    if filters.may_be_rare:
        rows = _newest_of_few(turns, all_turns, limit + 1)
    else:
        rows = list(readable(turns.newest_first())[: limit + 1])
    more = len(rows) > limit
    return Page(rows[:limit], _write_cursor(rows[limit - 1]) if more else None)


def _newest_of_few(turns: TurnQuerySet, all_turns: TurnQuerySet, count: int) -> list[Turn]:
    """The newest, where it is not known whether many match or next to none.

    In the order of time a page of what is frequent is full after a few rows, and one of what never happened reads every
    turn (over a minute with a million). So only the last turns are looked at that way; where they do not fill the page,
    what matches is collected through its own indexes. Two statements more than a plain list, three at most.
    """
    start = all_turns.newest_first().values_list("asked_at", flat=True)[NEAR : NEAR + 1].first()
    near = turns.filter(asked_at__gte=start) if start else turns
    keys = list(near.newest_first().values_list("pk", flat=True)[:count])
    if start and len(keys) < count:
        keys = list(turns.newest_collected().values_list("pk", flat=True)[:count])
    return list(readable(Turn.objects.filter(pk__in=keys)).newest_first())


def _nearest_page(found: list[Near]) -> Page:
    similarity = {near.turn: near.similarity for near in found}
    turns = {turn.pk: turn for turn in readable(Turn.objects.filter(pk__in=similarity))}
    return Page([turns[pk] for pk in similarity if pk in turns], similarity=similarity)


def find_turn(*, assistant: Assistant, name: str) -> Turn | None:
    """By our id, or by the client's."""
    turns = readable(Turn.objects.of(assistant))
    try:
        found = turns.filter(pk=uuid.UUID(name)).first()
    except ValueError:
        found = None
    return found or turns.filter(client_id=stored_id(name)).first()


def _write_cursor(turn: Turn) -> str:
    return base64.urlsafe_b64encode(f"{turn.asked_at.isoformat()}|{turn.pk}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        text, _, pk = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        moment = datetime.fromisoformat(text)
        if is_naive(moment):
            raise ValueError
        return moment, uuid.UUID(pk)
    except (ValueError, OverflowError, binascii.Error):
        raise bad("cursor", "must be the value of next in the page before") from None

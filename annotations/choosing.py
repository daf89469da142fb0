"""The turns that a filled-in filter means: counted, looked at where words and vectors decide, and put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from annotations import groundedness, novelty, sampling
from annotations.languages import language_of
from annotations.models import Queue
from annotations.selection import matching_turns
from capture.likeness import likeness_of, nearest
from capture.models import Retrieval, Turn, TurnQuerySet

MAX_NEAR = 1_000
COUNTED = 100_000
"""Rows up to which is counted: beyond it "more than" says enough."""
SECONDS = 30


@dataclass(frozen=True)
class Choice:
    """``turns``: in the order in which they would be labelled, as many as were asked for."""

    turns: Sequence[UUID]
    found: int
    """Turns that fit; at most `COUNTED`."""
    looked_at: int | None = None
    """Where each turn had to be looked at: how many were; None where the database decides alone."""
    of_more: bool = False
    """There were more to look at (or to count) than that."""


@transaction.atomic
def choose(queue: Queue, wanted: Mapping[str, Any]) -> Choice:
    """What cleaned data of `TurnFilterForm` means for this queue now.

    Raises:
        assistants.errors.ApiError: the example is no turn of the assistant, or its words could not be embedded.
        django.db.OperationalError: the database needed more than `SECONDS` for one statement.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{SECONDS}s"])
    turns = matching_turns(queue, wanted)
    order, limit = str(wanted["order"]), int(wanted["limit"])
    if not (_needs_a_look(wanted) or wanted.get("near") or order in (sampling.UNCERTAIN, sampling.DIVERSE)):
        found = bounded_count(turns)
        rows = sampling.in_database(turns, order).values_list("pk", flat=True)
        return Choice(list(rows[:limit]), found, of_more=found == COUNTED)
    pool = _nearest(queue, turns, wanted) if wanted.get("near") else _first(turns, order)
    kept = _kept(pool, wanted, queue)
    most = MAX_NEAR if wanted.get("near") else sampling.LOOKED_AT
    return Choice(_ordered(kept, queue, order, limit, wanted), len(kept), len(pool), of_more=len(pool) == most)


def turns_in_order(keys: Sequence[UUID]) -> list[Turn]:
    """As little of each turn as `add_turns` needs, in the order given."""
    found = Turn.objects.only("pk", "assistant_id").in_bulk(list(keys))
    return [found[key] for key in keys if key in found]


def bounded_count(turns: TurnQuerySet) -> int:
    return turns.order_by().values("pk")[:COUNTED].count()


def _needs_a_look(wanted: Mapping[str, Any]) -> bool:
    by_words = wanted.get("groundedness") in (groundedness.SUPPORTED, groundedness.UNSUPPORTED)
    return bool(by_words or wanted.get("language") or wanted.get("far_from"))


def _first(turns: TurnQuerySet, order: str) -> list[UUID]:
    """What is looked at where not all can be: the first of the order, the newest where the order comes of looking."""
    base = sampling.NEWEST if order in (sampling.UNCERTAIN, sampling.DIVERSE) else order
    return list(sampling.in_database(turns, base).values_list("pk", flat=True)[: sampling.LOOKED_AT])


def _nearest(queue: Queue, turns: TurnQuerySet, wanted: Mapping[str, Any]) -> list[UUID]:
    among = Turn.objects.of(queue.assistant)
    likeness = likeness_of(str(wanted["near"]), among=among, glossary=queue.assistant.glossary)
    least = wanted.get("near_least")
    found = nearest(turns, likeness, limit=MAX_NEAR)
    return [near.turn for near in found if least is None or near.similarity >= float(least)]


def _kept(pool: list[UUID], wanted: Mapping[str, Any], queue: Queue) -> list[UUID]:
    if language := wanted.get("language"):
        rows = Turn.objects.filter(pk__in=pool).order_by().values_list("pk", "metadata", "question", "response")
        own = {
            key
            for key, metadata, question, response in rows
            if language_of(metadata=metadata, question=question, response=response) == language
        }
        pool = [key for key in pool if key in own]
    if wanted.get("groundedness") in (groundedness.SUPPORTED, groundedness.UNSUPPORTED):
        supported = _supported(pool)
        says = wanted["groundedness"] == groundedness.SUPPORTED
        pool = [key for key in pool if (key in supported) is says]
    if far_from := wanted.get("far_from"):
        near = _similarities(pool, queue, str(far_from))
        pool = [key for key in pool if key in near and near[key] <= float(wanted["far_most"])]
    return pool


def _supported(pool: Sequence[UUID]) -> set[UUID]:
    passages: dict[UUID, list[tuple[int, str]]] = {}
    rows = Retrieval.objects.filter(turn__in=pool).order_by("rank").values_list("turn", "rank", "passage__text")
    for key, rank, text in rows:
        passages.setdefault(key, []).append((rank, text))
    answers = Turn.objects.filter(pk__in=pool).order_by().values_list("pk", "response")
    return {key for key, response in answers if groundedness.is_supported(response, passages.get(key, ()))}


def _similarities(pool: Sequence[UUID], queue: Queue, far_from: str) -> dict[UUID, float]:
    if far_from == novelty.DOCUMENTS:
        return novelty.similarity_to_documents(pool, queue.assistant)
    return novelty.similarity_to_training(novelty.vectors_of(pool), queue.assistant)


def _ordered(kept: list[UUID], queue: Queue, order: str, limit: int, wanted: Mapping[str, Any]) -> Sequence[UUID]:
    if order == sampling.UNCERTAIN:
        return sampling.by_uncertainty(kept, queue.assistant.evidence_threshold)[:limit]
    if order == sampling.DIVERSE:
        return sampling.by_difference(kept, queue, limit)
    if wanted.get("near") and order != sampling.NEAREST:
        rows = sampling.in_database(Turn.objects.filter(pk__in=kept), order)
        return list(rows.values_list("pk", flat=True)[:limit])
    return kept[:limit]

"""The turns that a recipe takes, read with what a candidate is made of and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import BinaryField, Func, QuerySet

from assistants.models import Assistant
from capture.models import Passage, Retrieval, Turn
from training.data.recipe import Recipe

SHELF = 20_000
"""Passages that are kept in memory while turns are read: some 40 MB."""


def turns_of(assistant: Assistant, recipe: Recipe) -> QuerySet[Turn]:
    """Resolved turns that the recipe takes, oldest first."""
    rows = Turn.objects.of(assistant).filter(resolution__isnull=False)
    for name, lookup in (("asked_from", "asked_at__gte"), ("asked_before", "asked_at__lt")):
        if day := getattr(recipe, name):
            rows = rows.filter(**{lookup: datetime.fromisoformat(day).replace(tzinfo=UTC)})
    if recipe.queues:
        rows = rows.filter(queue_items__queue__name__in=recipe.queues).distinct()
    if recipe.tags:
        rows = rows.with_any_tag(recipe.tags)
    return rows.order_by("asked_at", "pk")


def with_all_it_takes(turns: QuerySet[Turn]) -> QuerySet[Turn]:
    """For `from_turn`, without the columns that it does not read: vectors and completions are most of a row. Passages
    are read apart (`Shelf`). ``halves``: the vector (`vectors.sent`)."""
    fields = ("question", "history", "response", "metadata", "asked_at", "withheld", "assistant")
    decided = tuple(f"resolution__{name}" for name in ("turn", "verdict", "reasons", "response", "relevant_ranks"))
    halves = Func("embedding", function="halfvec_send", output_field=BinaryField())
    rows = turns.select_related("resolution", "conversation").annotate(halves=halves)
    return rows.only(*fields, *decided, "conversation__external_id")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a candidate is made of in a `Retrieval`: six instances of that model a turn take longer than all the rest of
    reading it."""

    rank: int
    evidence: Any
    source: str
    passage: Passage


class Shelf:
    """Passages that were read from the database, shared by the turns that show them: contexts are most of what a log
    holds, and repeat."""

    def __init__(self) -> None:
        self._passages: dict[int, Passage] = {}

    def retrieved(self, turns: Sequence[Turn]) -> dict[Any, list[Shown]]:
        """{turn: its passages in order of rank}, in at most two queries. A turn without any is missing."""
        rows = Retrieval.objects.filter(turn__in=[turn.pk for turn in turns]).order_by("rank")
        told = list(rows.values_list("turn_id", "passage_id", "rank", "own_source", "evidence"))
        self._fetch({passage for _, passage, *_ in told})
        found: dict[Any, list[Shown]] = {}
        for turn, key, rank, own_source, evidence in told:
            # Gone since the turn was read: an erasure. Freezing asks whether the turns are there still, and refuses.
            passage = self._passages.get(key) or Passage()
            source = passage.source if own_source is None else own_source
            found.setdefault(turn, []).append(Shown(rank, evidence, source, passage))
        return found

    def _fetch(self, wanted: set[int]) -> None:
        if len(self._passages) > SHELF:
            self._passages = {pk: self._passages[pk] for pk in wanted & self._passages.keys()}
        if missing := wanted - self._passages.keys():
            self._passages.update(Passage.objects.only("title", "text", "source").in_bulk(missing))

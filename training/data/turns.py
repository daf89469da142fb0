"""The turns that a recipe takes, read with what a candidate is made of and no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from django.db.models import Prefetch, QuerySet

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
        rows = rows.filter(tags__overlap=list(recipe.tags))
    return rows.order_by("asked_at", "pk")


def with_all_it_takes(turns: QuerySet[Turn]) -> QuerySet[Turn]:
    """For `from_turn`, without the columns that it does not read: vectors and completions are most of a row. Passages
    are missing yet (`Shelf`)."""
    lean = Retrieval.objects.order_by("rank").only("turn", "passage", "rank", "own_source", "evidence")
    wanted = turns.select_related("resolution", "conversation").prefetch_related(Prefetch("retrievals", queryset=lean))
    fields = ("question", "history", "response", "metadata", "asked_at", "embedding", "withheld", "assistant")
    return wanted.only(*fields, "conversation__external_id", "resolution")


class Shelf:
    """Passages that were read from the database, shared by the turns that show them: contexts are most of what a log
    holds, and repeat."""

    def __init__(self) -> None:
        self._passages: dict[int, Passage] = {}

    def give(self, turns: Sequence[Turn]) -> None:
        """Hands each retrieval of the turns its passage: at most one query."""
        shown = [retrieval for turn in turns for retrieval in turn.retrievals.all()]
        wanted = {retrieval.passage_id for retrieval in shown}
        if len(self._passages) > SHELF:
            self._passages = {pk: self._passages[pk] for pk in wanted & self._passages.keys()}
        if missing := wanted - self._passages.keys():
            self._passages.update(Passage.objects.only("title", "text", "source").in_bulk(missing))
        for retrieval in shown:
            # Gone since the turn was read: an erasure. Freezing asks whether the turns are there still, and refuses.
            retrieval.passage = self._passages.get(retrieval.passage_id) or Passage()

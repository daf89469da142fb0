"""Whether the vectors that turns and rows keep are of the embedder that is there now: a sample tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from django.db.models import QuerySet

from assistants.models import Assistant
from capture.models import Turn
from training.data.embedding import Asked, Embed
from training.data.recipe import Recipe
from training.data.turns import turns_of
from training.data.vectors import numbers_of, unit
from training.models import Benchmark, CuratedRow, CuratedSet, Synthesis, SyntheticItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

EMBED_ANEW = 2_000
"""Up to so many turns are embedded once more, in seconds; of more the stored vectors are taken, which are of half
precision."""
SAMPLE = 16
SAME_VECTOR = 0.995
"""Cosine of a stored and a fresh vector of one question: below, another embedder has made the stored ones."""


def written_rows(synthesis: Synthesis, recipe: Recipe) -> QuerySet[SyntheticItem]:
    """The questions of a synthesis that the recipe takes."""
    kept = synthesis.items.filter(dropped_by="").exclude(spot_check__verdict="bad")
    return (kept.filter(form__in=recipe.forms) if recipe.forms else kept).order_by("pk")


def curated_rows(assistant: Assistant, recipe: Recipe) -> QuerySet[CuratedRow]:
    """The rows of the imported sets that the recipe takes."""
    sets = CuratedSet.objects.filter(assistant=assistant, name__in=recipe.curated_sets)
    return CuratedRow.objects.filter(set__in=sets).order_by("set__name", "position")


def taken_as_stored(turns: int) -> bool:
    """Whether so many turns are not embedded anew, as long as what is stored fits."""
    return turns > EMBED_ANEW


def turns_fit(embed: Embed, rows: QuerySet[Turn], assistant: Assistant) -> bool:
    some = _some_turns(rows)
    stored = [unit(numbers_of(turn.embedding)) for turn in some]
    return _fit(stored, embed, _asked(some), assistant)


def rows_fit(embed: Embed, rows: QuerySet[Any]) -> bool:
    """Of questions that were written or imported."""
    some = _some_rows(rows)
    stored = [unit(np.frombuffer(row.vector, dtype="<f2").astype(np.float32)) for row in some]
    return _fit(stored, embed, _asked(some))


def asked_first(
    assistant: Assistant, recipe: Recipe, *, benchmark: Benchmark | None, synthesis: Synthesis | None
) -> Iterator[tuple[Sequence[Asked], dict[str, str]]]:
    """What a build will have embedded where every vector is stored: (questions, glossary) as they will be asked for."""
    if recipe.turns and taken_as_stored((rows := turns_of(assistant, recipe)).count()):
        yield _asked(_some_turns(rows)), assistant.glossary
    if recipe.curated_sets:
        yield _asked(_some_rows(curated_rows(assistant, recipe))), {}
    if synthesis is not None:
        yield _asked(_some_rows(written_rows(synthesis, recipe))), {}
    if benchmark is not None:
        yield _asked(benchmark.items.order_by("pk")), {}


def _some_turns(rows: QuerySet[Turn]) -> list[Turn]:
    return list(rows.exclude(embedding=None).only("question", "history", "embedding")[:SAMPLE])


def _some_rows(rows: QuerySet[Any]) -> list[Any]:
    return list(rows.exclude(vector=None)[:SAMPLE])


def _asked(rows: Any) -> list[Asked]:
    return [(row.question, row.history) for row in rows]


def _fit(
    stored: Sequence[NDArray[np.float32]], embed: Embed, asked: Sequence[Asked], assistant: Assistant | None = None
) -> bool:
    if not stored:
        return False
    fresh = embed(asked, assistant.glossary if assistant is not None else None)
    if any(len(vector) != fresh.shape[1] for vector in stored):
        return False
    return bool((fresh * np.stack(stored)).sum(axis=1).min() >= SAME_VECTOR)

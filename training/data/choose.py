"""Duplicates and caps: which of the candidates stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from training.data.collect import Funnel, Order
from training.data.near_kept import NearKept
from training.data.nearest import DOUBT, exactly, one_core
from training.data.pool import Head, Pool, batches
from training.data.recipe import Recipe
from training.data.split import bucket

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1_024


def deduplicate(order: Order, pool: Pool, rows: list[Head], funnel: Funnel) -> list[Head]:
    """Drops a question that is there already: of curated rows only the same words with the same answer (people do ask
    the same again, in their own words, and that is worth learning), of synthetic rows also the same meaning."""
    ordered = sorted(rows, key=lambda row: (not row.curated, row.group, row.question))
    kept: list[Head] = []
    why: list[str] = []
    seen: set[bytes] = set()
    near = pool.near_kept(room=len(rows))
    for row in (row for row in ordered if row.curated):
        if row.same in seen:
            why.append("same words")
            continue
        seen.add(row.same)
        kept.append(row)
    with one_core():
        for part in batches((row for row in kept if row.learnt), BLOCK):
            near.add_all(rows_of(part))
        done = 0
        for part in batches((row for row in ordered if not row.curated), BLOCK):
            kept += new_ones(part, near, seen=seen, threshold=order.recipe.near_duplicate, why=why)
            done += len(part)
            order.beat(stage="duplicates", done=done)
    funnel.step("duplicates", len(rows), len(kept), why)
    return kept


def new_ones(part: list[Head], near: NearKept, *, seen: set[bytes], threshold: float, why: list[str]) -> list[Head]:
    """Synthetic rows whose question is neither among the kept ones nor before them in this block."""
    places = rows_of(part)
    vectors = near.vectors(places)
    before = near.reached(vectors, threshold)
    within = vectors @ vectors.T
    for i, j in np.argwhere(np.abs(within - threshold) < DOUBT):
        within[i, j] = 1.0 if exactly(vectors[i], vectors[j]) >= threshold else -1.0
    kept: list[int] = []
    for i, row in enumerate(part):
        if row.same in seen:
            why.append("same words")
        elif before[i] or (kept and within[i, kept].max() >= threshold):
            why.append("same meaning")
        else:
            seen.add(row.same)
            kept.append(i)
    near.add_all(places[kept])
    return [part[i] for i in kept]


def rows_of(part: list[Head]) -> NDArray[np.int64]:
    return np.array([row.row for row in part], dtype=np.int64)


@dataclass
class Caps:
    """Counts what was taken so far; 0 is no cap."""

    recipe: Recipe
    room: int
    sentences: Counter[int] = field(default_factory=Counter)
    passages: Counter[int] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    persons: Counter[int] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)

    def against(self, row: Head) -> str:
        """Why the row is over a cap; empty when it is not."""
        recipe = self.recipe
        if not row.curated and _full(self.sentences, row.gold, recipe.per_sentence_cap):
            return "sentence asked often enough"
        if not row.curated and self.room == 0:
            return "more synthetic than the recipe allows"
        if _full(self.passages, row.passages, recipe.per_chunk_cap):
            return "passage used often enough"
        if _full(self.documents, row.documents, recipe.per_document_cap):
            return "document used often enough"
        if row.person >= 0 and _full(self.persons, (row.person,), recipe.per_person_cap):
            return "enough of one user"
        if _full(self.origins, (row.origin,), recipe.per_origin_cap):
            return "enough of one origin"
        return ""

    def take(self, row: Head) -> None:
        self.room -= not row.curated
        self.sentences.update(row.gold)
        self.passages.update(row.passages)
        self.documents.update(row.documents)
        self.origins[row.origin] += 1
        if row.person >= 0:
            self.persons[row.person] += 1


def cap(order: Order, rows: list[Head], funnel: Funnel) -> list[Head]:
    """Curated rows first, so that caps take synthetic ones; which of equals is drawn by the seed."""
    recipe = order.recipe
    curated = sum(row.curated and row.learnt for row in rows)
    caps = Caps(recipe, room=int(recipe.synthetic_per_curated * max(curated, 50)))
    kept: list[Head] = []
    why: list[str] = []
    for row in sorted(rows, key=lambda r: (not r.curated, bucket(r.question, recipe.seed))):
        if reason := caps.against(row):
            why.append(reason)
            continue
        caps.take(row)
        kept.append(row)
    funnel.step("caps", len(rows), len(kept), why)
    return kept


def _full(uses: Counter[int] | Counter[str], keys: Iterable[int] | Iterable[str], most: int) -> bool:
    return most > 0 and any(uses[key] >= most for key in keys)  # type: ignore[index]

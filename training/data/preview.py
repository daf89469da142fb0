"""What a recipe would give, before anything is frozen: the whole way but its last step."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from training.data.budget import Budget
from training.data.build import EmptyDataset, choose
from training.data.collect import CHUNK, Funnel, Order
from training.data.embedding import embedding_for
from training.data.freeze import count_budget, split_of
from training.data.models import DatasetPreview
from training.data.nothing import no_room
from training.data.pool import Head, Pool
from training.data.recipe import Recipe

SAMPLES = 20
BLOCKED = 20


def perform(preview: DatasetPreview) -> None:
    """Fills ``preview.result``: {funnel, mix, splits, rows, pairs, bad, blocked, samples, nothing}.

    Raises:
        training.data.recipe.RecipeError: a name in the recipe is nobody's.
    """
    recipe = Recipe.from_dict(preview.recipe)
    order = Order(preview.assistant, recipe, preview.benchmark, preview.synthesis, preview.beat)
    funnel = Funnel()
    nothing = ""
    with Pool() as pool, embedding_for(order.expected(), order.asked_first) as embed:
        order = replace(order, embed=embed)
        try:
            rows, blocked = choose(order, pool, funnel)
            rows = _within_budget(order, pool, rows, funnel)
        except EmptyDataset as error:  # the counts say most about why
            rows, blocked, nothing = [], [], str(error)
        preview.result = {
            "funnel": funnel.steps,
            "mix": _mix(rows),
            "splits": dict(Counter(split_of(row.group, recipe) for row in rows)),
            "rows": len(rows),
            "pairs": sum(row.judged and row.learnt for row in rows),
            "not_to_say": sum(row.judged for row in rows),
            # Not the question: what is erased must be gone from here too.
            "blocked": [{"item": b["item"], "by": b["by"], "score": b["score"]} for b in blocked[:BLOCKED]],
            "samples": [_sample(row, pool, recipe) for row in _some(rows, recipe)],
            "nothing": nothing,
        }
    preview.beat(stage="counted")
    preview.keep("result")


def _within_budget(order: Order, pool: Pool, rows: list[Head], funnel: Funnel) -> list[Head]:
    """The rows that fit, as freezing would keep them."""
    if not order.recipe.max_tokens:
        return rows
    budget = Budget(order.assistant, order.recipe.max_tokens)
    kept: list[Head] = []
    for done, head in enumerate(rows):
        if budget.fit(pool.read(head)) is not None:
            kept.append(head)
        if done % CHUNK == 0:
            order.beat(stage="token budget", done=done, total=len(rows))
    count_budget(funnel, len(rows), len(kept))
    if not any(head.answers for head in kept):
        raise EmptyDataset(no_room(order.recipe))
    return kept


def _mix(rows: list[Head]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row.origin, Counter())[row.kind] += 1
    return {origin: dict(kinds) for origin, kinds in found.items()}


def _some(rows: list[Head], recipe: Recipe) -> list[Head]:
    """Some of every origin and kind, the rarer the more likely."""
    rng = random.Random(recipe.seed)
    heaps: dict[tuple[str, str], list[Head]] = {}
    for row in rows:
        heaps.setdefault((row.origin, row.kind), []).append(row)
    shuffled = [rng.sample(heap, min(SAMPLES, len(heap))) for _, heap in sorted(heaps.items())]
    turns = [heap[i] for i in range(SAMPLES) for heap in shuffled if i < len(heap)]
    return turns[:SAMPLES]


def _sample(head: Head, pool: Pool, recipe: Recipe) -> dict[str, Any]:
    """A row of a turn is named, and read there; what no user has said stands here itself."""
    row = pool.read(head)
    told: dict[str, Any] = {
        "origin": head.origin,
        "kind": head.kind,
        "weight": head.weight,
        "split": split_of(head.group, recipe),
        "passages": len(row.contexts),
        "sentences": len(row.evidence),
        "came_from": row.came_from,
    }
    if head.turn_id is not None:
        return {**told, "turn": str(head.turn_id)}
    return {**told, "question": row.question, "response": row.response, "chunk": row.chunk_id}

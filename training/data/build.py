"""Builds a dataset version: sources → guard → duplicates → caps → mix → frozen rows, with every loss counted.

The same input gives the same content hash: nothing here depends on time, on row order in the database, or on chance
other than the recipe's seed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.data.auditing import helper_for
from training.data.choose import cap, deduplicate
from training.data.collect import Funnel, Order, collect
from training.data.derive import perform_derived
from training.data.embedding import embedding_for
from training.data.freeze import audit_lines, make_ready, write_version
from training.data.guard import guard
from training.data.mix import mix
from training.data.nothing import no_room, nothing_to_learn
from training.data.pool import Head, Pool
from training.data.recipe import Recipe
from training.models import DatasetVersion


class EmptyDataset(ValueError):
    """A recipe and labels that yield nothing to train on; the message says what is missing."""


def perform(dataset: DatasetVersion) -> None:
    """Fills a queued dataset version and freezes it. Runs again from the start after a crash: rows are written in one
    transaction at the end.

    Raises:
        EmptyDataset: no row with an answer is left.
        training.data.recipe.RecipeError: a name in the recipe is nobody's.
        training.data.freeze.TurnsErased: turns of its rows were erased meanwhile.
    """
    if dataset.parent is not None:
        perform_derived(dataset, dataset.parent)
        return
    if dataset.excluded:
        raise EmptyDataset("The version that it is a part of is gone. Build one from a recipe.")
    order = Order(
        dataset.assistant, Recipe.from_dict(dataset.recipe), dataset.benchmark, dataset.synthesis, dataset.beat
    )
    funnel = Funnel()
    with Pool() as pool:
        expected = order.expected()
        with helper_for(dataset.assistant, str(dataset), expected) as helper:
            with embedding_for(expected, order.asked_first) as embed:
                rows, blocked = choose(replace(order, helper=helper, embed=embed), pool, funnel)
            ready = make_ready(order, pool, rows, funnel, helper)
            if not ready.answers:
                raise EmptyDataset(no_room(order.recipe))
            report = audit_lines(dataset, pool, ready, dataset.beat, helper)
        dataset.beat(stage="freezing")
        write_version(dataset, pool, ready, report=report, funnel=funnel, blocked=blocked)


def choose(order: Order, pool: Pool, funnel: Funnel) -> tuple[list[Head], list[dict[str, Any]]]:
    """The rows of the version, weighted and mixed, and what the leakage guard blocked.

    Raises as `perform`.
    """
    order.beat(stage="collecting", done=0, total=0)
    rows = collect(order, pool, funnel)
    rows, blocked = guard(order, pool, rows, funnel)
    order.beat(stage="duplicates and caps")
    rows = cap(order, deduplicate(order, pool, rows, funnel), funnel)
    order.beat(stage="mix")
    rows = mix(order, pool, rows, funnel)
    if why := nothing_to_learn(rows, funnel):
        raise EmptyDataset(why)
    return rows, blocked

"""A version of some rows of another one: the same rows without those that somebody has excluded.

Nothing is collected or drawn anew, so that the two differ in what was excluded and in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from training.data.auditing import helper_for
from training.data.candidates import Candidate
from training.data.collect import CHUNK, Funnel, Order
from training.data.freeze import Ready, audit_lines, make_ready, write_version
from training.data.pool import Head, Pool
from training.data.recipe import Recipe
from training.models import DatasetVersion, Example


class NotDerivable(ValueError):
    """The parent cannot give its rows; the message says why."""


def perform_derived(dataset: DatasetVersion, parent: DatasetVersion) -> None:
    """Raises:
    NotDerivable: the parent was made for another prompt format, or nothing with an answer would be left.
    """
    if parent.prompt_digest != dataset.assistant.prompt_digest:
        raise NotDerivable(f"{parent} was made for another prompt format. Build a new version from a recipe.")
    recipe = Recipe.from_dict({**parent.recipe, "max_tokens": 0})
    order = Order(dataset.assistant, recipe, parent.benchmark, parent.synthesis, dataset.beat)
    excluded = set(dataset.excluded)
    funnel = Funnel()
    why: list[str] = []
    with Pool() as pool:
        heads = list(_kept(parent, excluded, pool, why))
        funnel.step(f"rows of {parent}", parent.rows, len(heads), why)
        if not any(head.answers for head in heads):
            raise NotDerivable(f"No row with an answer of {parent} would be left.")
        with helper_for(dataset.assistant, str(dataset), len(heads)) as helper:
            ready: Ready = make_ready(order, pool, heads, funnel, helper)
            report = audit_lines(dataset, pool, ready, dataset.beat, helper)
        dataset.beat(stage="freezing")
        parent.refresh_from_db(fields=["blocked"])  # an erasure may have emptied some since this began
        write_version(dataset, pool, ready, report=report, funnel=funnel, blocked=parent.blocked)


def _kept(parent: DatasetVersion, excluded: set[int], pool: Pool, why: list[str]) -> Iterator[Head]:
    for example in parent.examples.order_by("position").iterator(chunk_size=CHUNK):
        if example.position in excluded:
            why.append("excluded")
        elif example.erased_at is not None:
            why.append("erased")
        else:
            head = pool.add(candidate_of(example), None)
            head.weight = example.weight
            yield head


def candidate_of(example: Example) -> Candidate:
    return Candidate(
        origin=example.origin,
        kind=example.kind,
        group=example.group,
        question=example.question,
        history=example.history,
        contexts=example.contexts,
        evidence=example.evidence,
        sentences=example.sentences,
        rejected=example.rejected,
        turn_id=example.turn_id,
        chunk_id=example.chunk_id,
        came_from=example.came_from,
    )

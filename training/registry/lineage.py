"""Where an adapter comes from, step by step: turns and chunks → dataset → run → adapter, and what it continues."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count

from training.models import Adapter, DatasetVersion, Example

MAX_DEPTH = 20


@dataclass(frozen=True)
class Step:
    """One adapter of the chain. Counts of its dataset's rows by what they were made of."""

    adapter: Adapter
    turns: int
    chunks: int
    rows: int


def lineage_of(adapter: Adapter) -> list[Step]:
    """The adapter first, then what it continues. Two queries for each step."""
    chain: list[Step] = []
    current: Adapter | None = adapter
    while current is not None and len(chain) < MAX_DEPTH:
        turns = chunks = rows = 0
        if current.run is not None:
            counted = Example.objects.filter(dataset=current.run.dataset_id).aggregate(
                turns=Count("turn", distinct=True), chunks=Count("chunk", distinct=True), rows=Count("pk")
            )
            turns, chunks, rows = counted["turns"], counted["chunks"], counted["rows"]
        chain.append(Step(current, turns, chunks, rows))
        current = (
            Adapter.objects.select_related("run__dataset").filter(pk=current.parent_id).first()
            if current.parent_id
            else None
        )
    return chain


def datasets_of(adapter: Adapter) -> list[DatasetVersion | None]:
    """What the adapter has learned from, then what those have that it continues; None for one whose data are not known
    here (imported). One or two queries for each step."""
    found: list[DatasetVersion | None] = []
    current: Adapter | None = adapter
    while current is not None and len(found) < MAX_DEPTH:
        found.append(current.run.dataset if current.run is not None else None)
        current = current.parent
    return found

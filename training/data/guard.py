"""What the benchmark keeps out of a dataset: its questions in any wording, and the documents that it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.data.collect import Funnel, Order
from training.data.leakage import Guard
from training.data.pool import Head, Pool
from training.models import UNTOUCHED, BenchmarkItem

HELD_OUT = "held-out document"
CONVERSATION = "conversation of the benchmark"
PART = 2_000
MAX_BLOCKED_LISTED = 500


def guard(order: Order, pool: Pool, rows: list[Head], funnel: Funnel) -> tuple[list[Head], list[dict[str, Any]]]:
    """What is left, and what was blocked: [{question, item, by, score, turn}], the first `MAX_BLOCKED_LISTED`."""
    if order.benchmark is None:
        return rows, []
    items = list(order.benchmark.items.order_by("pk"))
    blocked = _by_question(order, pool, rows, items)
    held_out = held_out_documents(items)
    for i, row in enumerate(rows):
        if i not in blocked and (path := next((d for d in row.documents if d in held_out), None)):
            blocked[i] = _entry(row, held_out[path], HELD_OUT, 1.0)
    _by_conversation(rows, blocked)
    kept = [row for i, row in enumerate(rows) if i not in blocked]
    listed = list(blocked.values())
    funnel.step("leakage guard", len(rows), len(kept), (entry["by"] for entry in listed))
    return kept, listed[:MAX_BLOCKED_LISTED]


def _by_question(
    order: Order, pool: Pool, rows: Sequence[Head], items: Sequence[BenchmarkItem]
) -> dict[int, dict[str, Any]]:
    watch = Guard([(item.question, item.history) for item in items], order.recipe.near_duplicate, order.embed)
    blocked: dict[int, dict[str, Any]] = {}
    for first in range(0, len(rows), PART):
        part = rows[first : first + PART]
        for leak in watch.leaks([(row.question, row.asked) for row in part], pool.vectors(part), first=first):
            blocked[leak.row] = _entry(rows[leak.row], items[leak.item].key, leak.by, leak.score)
        order.beat(stage="leakage guard", done=first + len(part), total=len(rows))
    return blocked


def _by_conversation(rows: Sequence[Head], blocked: dict[int, dict[str, Any]]) -> None:
    """The rest of a conversation in which the benchmark's very question was asked: its answer may stand in a history
    there. Nearly the same question blocks only itself: many people ask nearly the same."""
    source = {rows[i].group: entry["item"] for i, entry in blocked.items() if entry["by"] == "same words"}
    source = {group: item for group, item in source.items() if group.startswith("conversation:")}
    for i, row in enumerate(rows):
        if i not in blocked and row.group in source and row.asked != row.question:
            blocked[i] = _entry(row, source[row.group], CONVERSATION, 1.0)


def held_out_documents(items: Sequence[BenchmarkItem]) -> dict[str, str]:
    """{path: key of an item}: documents from which no row may answer, so that one slice of the benchmark measures what
    no training has touched."""
    return {gold["path"]: item.key for item in reversed(items) if item.slice == UNTOUCHED for gold in item.gold}


def _entry(row: Head, item: str, by: str, score: float) -> dict[str, Any]:
    return {"question": row.question, "item": item, "by": by, "score": score, "turn": row.turn_id}

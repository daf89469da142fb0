"""The mix of contexts: rows without their oracle, with less around it, with two questions in one; shares and weights.

Two questions are only joined where no person has asked either: a row that is made of two turns could not be found by
the erasure of one of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from knowledge.evidence import is_below
from training.data.alter import fewer_passages, oracle_only, shuffled, two_in_one, without_oracle
from training.data.candidates import Candidate
from training.data.collect import Funnel, Order
from training.data.pool import Head, Pool
from training.data.recipe import Recipe
from training.data.split import bucket
from training.models import Kind, Origin


def mix(order: Order, pool: Pool, rows: list[Head], funnel: Funnel) -> list[Head]:
    recipe = order.recipe
    rng = random.Random(recipe.seed)
    answers = [row for row in rows if row.answers]
    missing = _missing(order, pool, answers, rng)
    total = _count_added(funnel, "missing oracle added", len(rows), ["the oracle taken away"] * len(missing))
    joined, kinds = _joined(order, pool, answers)
    total = _count_added(funnel, "two questions in one added", total, kinds)
    declines = [row for row in rows if row.kind == Kind.DECLINE and row.learnt] + missing
    handoffs = [row for row in rows if row.kind == Kind.HANDOFF and row.learnt]
    bad = [row for row in rows if not row.learnt]
    others = answers + joined
    fewer = _at_most(recipe.max_handoff_share, handoffs, len(others), recipe)
    total = _count_over(funnel, "handing-over share", total, len(handoffs) - len(fewer))
    others = others + fewer
    fewer = _at_most(recipe.max_decline_share, declines, len(others), recipe)
    _count_over(funnel, "declining share", total, len(declines) - len(fewer))
    mixed = [*others, *fewer, *bad]
    for row in mixed:
        row.weight = weight_of(row, recipe)
    return _altered(order, pool, mixed, rng)


def _missing(order: Order, pool: Pool, answers: Sequence[Head], rng: random.Random) -> list[Head]:
    wanted = int(order.recipe.missing_oracle_share * len(answers))
    threshold = order.assistant.evidence_threshold
    made: list[Head] = []
    for row in rng.sample(answers, len(answers)) if wanted else ():
        if len(made) == wanted:
            break
        changed = without_oracle(pool.read(row), order.assistant)
        # What is left may be so little alike that serving declines it by itself.
        if changed is not None and not is_below((like for _, _, like in changed.evidence), threshold):
            made.append(as_changed(pool, row, changed))
    return made


def _joined(order: Order, pool: Pool, answers: Sequence[Head]) -> tuple[list[Head], list[str]]:
    """Two questions in one, of one document; and which of both kinds each is."""
    recipe = order.recipe
    wanted = {
        True: int(recipe.several_oracles_share * len(answers)),
        False: int(recipe.partial_share * len(answers)),
    }
    if not any(wanted.values()):
        return [], []
    by_group: dict[str, list[Head]] = {}
    for row in sorted(answers, key=lambda r: bucket(r.question, recipe.seed)):
        if row.turn_id is None and row.origin in (Origin.SYNTHETIC, Origin.IMPORTED) and row.asked == row.question:
            by_group.setdefault(row.group, []).append(row)
    made: list[Head] = []
    why: list[str] = []
    for both, name in ((True, "two sources"), (False, "one of two answered")):
        count = 0
        for group in by_group.values():
            for first, second in zip(group[::2], group[1::2], strict=False):
                if count == wanted[both]:
                    break
                changed = two_in_one(pool.read(first), pool.read(second), order.assistant, both=both)
                if changed is not None:
                    made.append(as_changed(pool, first, changed))
                    why.append(name)
                    count += 1
    return made, why


def _altered(order: Order, pool: Pool, rows: list[Head], rng: random.Random) -> list[Head]:
    """Draws which rows are shown with less around their oracle, or in another order. A row with a judged answer stays
    as it was asked: what was said then cites what was shown then."""
    recipe = order.recipe
    made: list[Head] = []
    for row in rows:
        only = row.answers and _drawn(recipe.oracle_only_share, rng)
        fewer = not only and _drawn(recipe.fewer_passages_share, rng)
        order_drawn = rng.random() < recipe.shuffled_share
        if row.judged or not (only or fewer or order_drawn):
            made.append(row)
            continue
        changed = pool.read(row)
        if only:
            changed = oracle_only(changed)
        elif fewer:
            changed = fewer_passages(changed, rng)
        if order_drawn:
            changed = shuffled(changed, rng, order.assistant)
        made.append(as_changed(pool, row, changed))
    return made


def _drawn(share: float, rng: random.Random) -> bool:
    """Draws nothing where nothing can come of it: another choice of the recipe must not change what this one draws."""
    return share > 0 and rng.random() < share


def as_changed(pool: Pool, row: Head, changed: Candidate) -> Head:
    place, size = pool.put(changed)
    return replace(
        row, place=place, size=size, origin=str(changed.origin), kind=str(changed.kind), question=changed.question,
        judged=bool(changed.rejected),
    )  # fmt: skip


def _at_most(share: float, rows: list[Head], others: int, recipe: Recipe) -> list[Head]:
    """So many of the rows that they are at most ``share`` of them and the others together; curated ones stay first."""
    allowed = int(share / (1 - share) * others + 1e-9)
    if len(rows) <= allowed:
        return rows
    return sorted(rows, key=lambda row: (not row.curated, bucket(row.question, recipe.seed)))[:allowed]


def _count_added(funnel: Funnel, step: str, before: int, why: Sequence[str]) -> int:
    if why:
        funnel.step(step, before, before + len(why), why)
    return before + len(why)


def _count_over(funnel: Funnel, step: str, before: int, over: int) -> int:
    if over:
        funnel.step(step, before, before - over, ["over the share"] * over)
    return before - over


def weight_of(row: Head, recipe: Recipe) -> int:
    weights = {
        Origin.CORRECTED.value: recipe.weight_corrected,
        Origin.GOOD.value: recipe.weight_good,
        Origin.DECLINED.value: recipe.weight_good,
        Origin.SYNTHETIC.value: recipe.weight_synthetic,
        Origin.BAD.value: 1,
    }
    weight = weights.get(row.origin, recipe.weight_imported)
    return max(weight, recipe.weight_handoff) if row.kind == Kind.HANDOFF and row.learnt else weight

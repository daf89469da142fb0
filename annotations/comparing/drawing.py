"""Which pairs are judged: a sample that keeps the shares of its strata."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def stratified(items: Sequence[T], size: int, *, stratum: Callable[[T], str], rng: random.Random) -> list[T]:
    """``size`` of the items in random order (all, when there are fewer): of each stratum as many as its share asks for,
    what rounding leaves over to those with the largest remainders. A stratum may go without when ``size`` is small."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(stratum(item), []).append(item)
    size = min(size, len(items))
    wanted = {name: size * len(group) / len(items) for name, group in groups.items()}
    counts = {name: int(share) for name, share in wanted.items()}
    by_remainder = sorted(groups, key=lambda name: (counts[name] - wanted[name], name))
    for name in by_remainder[: size - sum(counts.values())]:
        counts[name] += 1
    drawn = [item for name in sorted(groups) for item in rng.sample(groups[name], counts[name])]
    rng.shuffle(drawn)
    return drawn

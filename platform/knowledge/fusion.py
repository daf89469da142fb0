"""Several opinions on the same candidates made one. Pure functions of numbers.

Scores are scaled to 0…1 over each list and added with weights: that keeps how far apart two passages are, which
reciprocal ranks forget. Ranks: Cormack, Clarke, Büttcher 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", int, str)


def scaled(scores: Mapping[Key, float], listed: int, *, floor: float | None = None) -> dict[Key, float]:
    """Scores on 0…1: the best is 1, the last of the first ``listed`` is 0, and so is everything behind it.

    Args:
        floor: what counts as 0 when there are fewer than ``listed``: for words, whose score is 0 without a match.
    """
    if not scores:
        return {}
    ordered = sorted(scores.values(), reverse=True)[:listed]
    low = floor if floor is not None and len(ordered) < listed else ordered[-1]
    span = ordered[0] - low
    if span <= 0:
        return dict.fromkeys(scores, 1.0)
    return {key: max(0.0, (score - low) / span) for key, score in scores.items()}


def by_rank(scores: Mapping[Key, float], listed: int, constant: int) -> dict[Key, float]:
    """Reciprocal ranks on 0…1: the first is 1. Equal scores go by key, so that nothing depends on chance."""
    order = sorted(scores, key=lambda key: (-scores[key], key))[:listed]
    return {key: (constant + 1) / (constant + place) for place, key in enumerate(order, start=1)}


def weighted(opinions: Sequence[tuple[float, Mapping[Key, float]]]) -> dict[Key, float]:
    """The weighted mean of opinions; a key that one of them does not know counts 0 there."""
    total = sum(weight for weight, _ in opinions) or 1.0
    keys = dict.fromkeys(key for _, scores in opinions for key in scores)
    return {key: sum(weight * scores.get(key, 0.0) for weight, scores in opinions) / total for key in keys}

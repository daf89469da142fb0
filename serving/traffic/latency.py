"""Latencies as counts in bins that grow by a quarter: sums of hours give percentiles of weeks, at most 12 % off."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

EDGES = tuple(dict.fromkeys(round(10 * 1.25**n) for n in range(44)))
"""Milliseconds; bin i holds EDGES[i-1] <= latency < EDGES[i], the first what is below, the last what is above."""
BINS = len(EDGES) + 1


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Milliseconds below which ``share`` of the turns lie, between the edges of its bin; None without turns.

    Args:
        counts: turns by bin, of length `BINS`.
        share: 0.5 is the median.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    for place, reached in enumerate(accumulate(counts)):
        if reached >= wanted and counts[place]:
            low = EDGES[place - 1] if place else 0
            high = EDGES[place] if place < len(EDGES) else EDGES[-1]
            return low + (high - low) * (wanted - (reached - counts[place])) / counts[place]
    return float(EDGES[-1])


def added(rows: Sequence[Sequence[int]]) -> list[int]:
    """Bin by bin."""
    return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * BINS

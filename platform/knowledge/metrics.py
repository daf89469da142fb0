"""How well a list of passages serves a question whose right passages are known. Pure functions, binary relevance.

The definitions are those of TREC and of ranx: recall@k is the share of the right ones among the first k, the reciprocal
rank that of the first right one, nDCG@k discounts by log2(rank + 1) and divides by the best possible order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

CUTS = (1, 3, 5, 10)
NDCG_AT = 10
DEPTH = 20
"""Passages that are fetched for each question; what comes later counts as not found."""


def recall(ranks: Sequence[int], k: int) -> float:
    """``ranks``: of each right passage, from 1; 0 where it was not found."""
    return sum(0 < rank <= k for rank in ranks) / len(ranks)


def hit(ranks: Sequence[int], k: int) -> float:
    """1 when any right passage is among the first k."""
    return float(any(0 < rank <= k for rank in ranks))


def reciprocal_rank(ranks: Sequence[int]) -> float:
    found = [rank for rank in ranks if rank]
    return 1 / min(found) if found else 0.0


def ndcg(ranks: Sequence[int], k: int = NDCG_AT) -> float:
    """Two right sentences in one passage are one right passage: they gain once, and in the best order too."""
    found = {rank for rank in ranks if rank}
    gained = sum(1 / math.log2(rank + 1) for rank in found if rank <= k)
    best = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(found) + list(ranks).count(0)) + 1))
    return gained / best


def of_question(ranks: Sequence[int]) -> dict[str, float]:
    """Every measure of one question, by name.

    Raises:
        ValueError: no right passage is known; such a question measures declining, not finding.
    """
    if not ranks:
        raise ValueError("a question without right passages has no recall")
    measures = {f"recall@{k}": recall(ranks, k) for k in CUTS}
    measures |= {f"hit@{k}": hit(ranks, k) for k in CUTS}
    return {**measures, "mrr": reciprocal_rank(ranks), f"ndcg@{NDCG_AT}": ndcg(ranks)}


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}

"""How far two raters agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's κ (1960); None where both say one and the same thing throughout, or nothing: chance explains all.

    Raises:
        ValueError: they rated different numbers of things.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} ratings are no pairs")
    n = len(first)
    if not n:
        return None
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    a, b = Counter(first), Counter(second)
    chance = sum(a[name] * b[name] for name in a) / n**2
    return (observed - chance) / (1 - chance) if chance < 1 else None


def agreement(first: Sequence[str], second: Sequence[str]) -> dict[str, Any]:
    """Share and κ with its bootstrap interval: {n, same, kappa, low, high}; None where nothing can be said."""
    n = len(first)
    kappa = cohen_kappa(first, second)
    found: dict[str, Any] = {"n": n, "same": None, "kappa": kappa, "low": None, "high": None}
    if n:
        found["same"] = sum(a == b for a, b in zip(first, second, strict=True)) / n
    if kappa is not None:
        draws = np.random.default_rng(0).integers(0, n, size=(RESAMPLES, n))
        values = [cohen_kappa([first[i] for i in draw], [second[i] for i in draw]) for draw in draws]
        known = [value for value in values if value is not None]
        found["low"], found["high"] = (float(x) for x in np.quantile(known, [0.025, 0.975]))
    return found

"""The baseline without a model: the most similar sentence is the answer, and below a threshold it declines.

What a fine-tuned model must beat to be worth its weights. The threshold is not given but fitted, and so that nothing is
fitted to what it is measured on: the questions fall into folds by document, and each fold gets the threshold that did
best on the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from generation.prompts import House, Prompt, SentenceRef, render_completion, split_sentences
from training.models import BenchmarkItem

FOLDS = 5
Worth = Callable[[BenchmarkItem, bool], float]
"""(item, declined) → what the answer, or declining, is worth: 0 … 1."""


def completion(house: House, prompt: Prompt, frozen: Mapping[str, object], threshold: float) -> str:
    """The most similar offered sentence word for word with its citation, or the decline sentence."""
    found = best(frozen)
    if found is None or found[2] < threshold:
        return house.decline
    rank, index, _ = found
    passages: Sequence[Mapping[str, object]] = frozen["passages"]  # type: ignore[assignment]
    text = next(str(p["text"]) for p in passages if p["rank"] == rank)
    sentence = split_sentences(text)[index]
    return render_completion(house=house, prompt=prompt, sentences=[(sentence, [SentenceRef(rank, index)])])


def best(frozen: Mapping[str, object]) -> tuple[int, int, float] | None:
    """(rank, sentence, similarity) of the most similar offered sentence; of equals the first."""
    evidence: Sequence[Sequence[float]] = frozen["evidence"]  # type: ignore[assignment]
    if not evidence:
        return None
    rank, index, similarity = max(evidence, key=lambda entry: entry[2])
    return int(rank), int(index), float(similarity)


def fold_of(cluster: str) -> int:
    return hashlib.sha256(cluster.encode("utf-8", "surrogatepass")).digest()[0] % FOLDS


def thresholds(
    items: Sequence[BenchmarkItem], similarity: Sequence[float], clusters: Sequence[str], worth: Worth
) -> list[float]:
    """The threshold for each fold, fitted on all others; 0 where there are none.

    ``similarity``: of each item's best sentence. Of equally good thresholds the lowest: it answers more.
    """
    gains = [(worth(item, False), worth(item, True)) for item in items]
    folds = [fold_of(cluster) for cluster in clusters]
    return [
        best_threshold([(s, *gain) for s, gain, f in zip(similarity, gains, folds, strict=True) if f != fold])
        for fold in range(FOLDS)
    ]


def best_threshold(points: Sequence[tuple[float, float, float]]) -> float:
    """Where most is right: of equally good ones the lowest. ``points``: (similarity, worth of answering, worth of
    declining)."""
    total = sum(answering for _, answering, _ in points)
    best_total, threshold = total, 0.0
    ordered = sorted(points)
    for place, (similarity, answering, declining) in enumerate(ordered):
        total += declining - answering  # declines everything up to this one
        following = ordered[place + 1][0] if place + 1 < len(ordered) else similarity + 0.01
        if following > similarity and total > best_total + 1e-12:
            best_total, threshold = total, (similarity + following) / 2
    return threshold

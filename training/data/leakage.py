"""The leakage guard: no question of a benchmark, nor one that is nearly the same, gets into a dataset.

Two nets. Words: the same words in order, or most of a held-out question's 8-word runs (what a copied question with
a new greeting looks like). Meaning: cosine of the question vectors. A follow-up is compared together with what it
follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from generation.overlap import ngrams, words
from generation.prompts import Message
from knowledge.query import history_query, question_vectors
from training.data.embedding import Embed
from training.data.nearest import DOUBT, exactly, one_core

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN = 8
"""Words in a row that are hardly the same by chance."""
COPIED = 0.6
"""Share of the held-out question's runs of words from which a row counts as a copy of it."""


WHOLE_QUESTION = 6
"""Words from which a question is taken to mean something without its history."""


@dataclass(frozen=True)
class Leak:
    """``row`` of the dataset is too near to ``item`` of the benchmark."""

    row: int
    item: int
    by: str
    score: float


def find_leaks(
    *,
    rows: Sequence[tuple[str, Sequence[Message]]],
    items: Sequence[tuple[str, Sequence[Message]]],
    threshold: float,
) -> list[Leak]:
    """Leaks among (question, history) pairs, at most one for each row, in row order. Cost: one embedding of each
    distinct text and one product of (rows × items)."""
    if not rows or not items:
        return []
    vectors = question_vectors(rows)
    return Guard(items, threshold).leaks([(q, history_query(q, h)) for q, h in rows], vectors)


class Guard:
    """Holds the benchmark's questions; `leaks` may be called for one part of the rows after the other."""

    def __init__(
        self, items: Sequence[tuple[str, Sequence[Message]]], threshold: float, embed: Embed = question_vectors
    ) -> None:
        self._threshold = threshold
        texts = [history_query(q, h) for q, h in items]
        self._vectors = embed(items)
        self._by_words = {words(text): i for i, text in reversed(list(enumerate(texts)))}
        # A whole question is the same question whatever was said before it; "And how much?" is not.
        self._by_words |= {words(q): i for i, (q, _) in reversed(list(enumerate(items))) if _is_whole(q)}
        self._runs = _runs_of_words(texts)

    def leaks(self, rows: Sequence[tuple[str, str]], vectors: NDArray[np.float32], *, first: int = 0) -> list[Leak]:
        """Of (question, question with what it follows) rows and their vectors, counted from ``first``."""
        with one_core():
            similar: NDArray[np.float32] = vectors @ self._vectors.T
        found = []
        for index, (question, text) in enumerate(rows):
            same = self._by_words.get(words(text), self._by_words.get(words(question)) if _is_whole(question) else None)
            if same is not None:
                found.append(Leak(first + index, same, "same words", 1.0))
                continue
            nearest = int(similar[index].argmax())
            score = round(float(similar[index, nearest]), 4)
            if abs(score - self._threshold) < 2 * DOUBT:
                near = np.flatnonzero(similar[index] > score - 4 * DOUBT)
                score, nearest = max((round(exactly(self._vectors[i], vectors[index]), 4), -int(i)) for i in near)
                nearest = -nearest
            if score >= self._threshold:
                found.append(Leak(first + index, nearest, "meaning", score))
                continue
            copied, share = _most_copied(text, self._runs)
            if share >= COPIED:
                found.append(Leak(first + index, copied, "copied words", round(share, 4)))
        return found


def _runs_of_words(texts: Sequence[str]) -> dict[tuple[str, ...], dict[int, float]]:
    """Run of `RUN` words → {text: the share of that text's runs that this one is}."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    for index, text in enumerate(texts):
        grams = ngrams(text, RUN)
        for gram in grams:
            found.setdefault(gram, {})[index] = 1 / len(grams)
    return found


def _most_copied(text: str, runs: dict[tuple[str, ...], dict[int, float]]) -> tuple[int, float]:
    """The item of which most stands in ``text`` (whatever stands around it), and how much."""
    shares: defaultdict[int, float] = defaultdict(float)
    for gram in ngrams(text, RUN):
        for index, share in runs.get(gram, {}).items():
            shares[index] += share
    return max(shares.items(), key=lambda pair: (pair[1], -pair[0]), default=(0, 0.0))


def _is_whole(question: str) -> bool:
    return len(words(question)) >= WHOLE_QUESTION

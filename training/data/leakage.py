"""The leakage guard: no question of a benchmark, nor one that is nearly the same, gets into a dataset.

Two nets. Words: the same words in order, or most 8-word runs in common (what a copied question with a new greeting
looks like). Meaning: cosine of the question vectors. A follow-up is compared together with what it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from generation.prompts import Message
from knowledge.query import history_query, question_vectors
from training.data.text import ngram_recall, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COPIED = 0.6
"""Share of 8-grams in common from which a question counts as copied."""


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
    row_vectors: NDArray[np.float32] | None = None,
) -> list[Leak]:
    """Leaks among (question, history) pairs, at most one for each row, in row order. Cost: one embedding of each
    distinct text (of the rows only where ``row_vectors`` are not given) and one product of (rows × items)."""
    if not rows or not items:
        return []
    row_texts = [history_query(q, h) for q, h in rows]
    item_texts = [history_query(q, h) for q, h in items]
    if row_vectors is None:
        row_vectors = question_vectors(rows)
    similar: NDArray[np.float32] = row_vectors @ question_vectors(items).T
    by_words = {words(text): i for i, text in reversed(list(enumerate(item_texts)))}
    # A whole question is the same question whatever was said before it; "And how much?" is not.
    by_words |= {words(q): i for i, (q, _) in reversed(list(enumerate(items))) if _is_whole(q)}
    leaks = []
    for index, (text, (question, _)) in enumerate(zip(row_texts, rows, strict=True)):
        same = by_words.get(words(text), by_words.get(words(question)) if _is_whole(question) else None)
        if same is not None:
            leaks.append(Leak(index, same, "same words", 1.0))
            continue
        nearest = int(similar[index].argmax())
        score = round(float(similar[index, nearest]), 4)
        if score >= threshold:
            leaks.append(Leak(index, nearest, "meaning", score))
        elif len(words(text)) >= 8 and (recall := ngram_recall(text, item_texts[nearest], 8)) >= COPIED:
            leaks.append(Leak(index, nearest, "copied words", round(recall, 4)))
    return leaks


def _is_whole(question: str) -> bool:
    return len(words(question)) >= WHOLE_QUESTION

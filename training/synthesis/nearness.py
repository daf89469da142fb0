"""What a new question must not be too near to: the kept ones, and every benchmark's.

Two nets each. Words: MinHash over words and pairs of words finds the same question with a word changed among any number
of kept ones. Meaning: the cosine of the question vectors finds it in other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from assistants.models import Assistant
from generation.overlap import ngrams, words
from generation.prompts import Message
from knowledge.query import history_query, question_vectors
from training.data.leakage import COPIED, RUN, WHOLE_QUESTION
from training.data.nearest import Kept
from training.models import BenchmarkItem

if TYPE_CHECKING:
    from datasketch import MinHash
    from numpy.typing import NDArray

SAME_MEANING = 0.92
SAME_WORDS = 0.9
"""Jaccard similarity. Questions are short: at .8 “on Acorn” and “on Drift” would be the same."""
HELD_OUT_MEANING = 0.9
_PERMUTATIONS = 128


class AskedBefore:
    """The kept questions of one synthesis."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._lsh = MinHashLSH(threshold=SAME_WORDS, num_perm=_PERMUTATIONS)
        self._kept = Kept()

    def __len__(self) -> int:
        return len(self._kept)

    def why(self, text: str, vector: NDArray[np.float32]) -> str:
        """What is the same as in a kept question; empty: nothing."""
        if self._lsh.query(_minhash(text)):
            return "the words of a kept question"
        similarity = self._kept.similarity(vector)
        return f"cosine {similarity:.2f} to a kept question" if similarity >= SAME_MEANING else ""

    def add(self, text: str, vector: NDArray[np.float32]) -> None:
        self._lsh.insert(str(len(self._kept)), _minhash(text))
        self._kept.add(vector)


class HeldOut:
    """The questions of every benchmark of one assistant, embedded once."""

    def __init__(self, assistant: Assistant) -> None:
        rows = BenchmarkItem.objects.filter(benchmark__assistant=assistant).values_list("question", "history")
        pairs: list[tuple[str, Sequence[Message]]] = [(question, history) for question, history in rows]
        texts = [history_query(question, history) for question, history in pairs]
        self._vectors = question_vectors(pairs, assistant.glossary) if pairs else np.zeros((0, 384), dtype=np.float32)
        self._words = {words(text) for text in texts}
        self._words |= {words(question) for question, _ in pairs if len(words(question)) >= WHOLE_QUESTION}
        self._runs = [grams for text in texts if (grams := ngrams(text, RUN))]

    def why(self, question: str, history: Sequence[Message], vector: NDArray[np.float32]) -> str:
        """Which net a question is caught in; empty: none."""
        text = history_query(question, history)
        whole = len(words(question)) >= WHOLE_QUESTION
        if words(text) in self._words or (whole and words(question) in self._words):
            return "the words of a held-out question"
        if len(self._vectors) and (nearest := float((self._vectors @ vector).max())) >= HELD_OUT_MEANING:
            return f"cosine {nearest:.2f} to a held-out question"
        own = ngrams(text, RUN)
        if own and any(len(own & grams) >= COPIED * len(grams) for grams in self._runs):
            return "most words of a held-out question in a row"
        return ""


def _minhash(text: str) -> MinHash:
    from datasketch import MinHash

    found = MinHash(num_perm=_PERMUTATIONS)
    said = words(text)
    for token in [*said, *(f"{a} {b}" for a, b in pairwise(said))]:
        found.update(token.encode())
    return found

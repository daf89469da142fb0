"""Sentence evidence: which sentences of the retrieved passages speak to the question.

Retrieving documents and offering *sentences* is the cheapest gain known for a small model: it reads six lines instead
of four passages. Sentence vectors are made once per distinct text, stored beside it as float16 (a chunk's are 5 kB),
and ranked here with one matrix product; nothing is embedded again at question time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from generation.prompts import SentenceRef, split_sentences
from knowledge.embedding import embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSION = 384
SENTENCES = "heading-window-mean-1"
"""Names what a sentence's vector is made of: part of the index and of the retrieval configuration."""


@dataclass(frozen=True)
class EvidencePassage:
    """``sentence_embeddings``: packed, one row per sentence of `split_sentences(text)`."""

    rank: int
    text: str
    sentence_embeddings: bytes


@dataclass(frozen=True)
class ScoredSentence:
    """``similarity``: to the history-aware question, the mean of two cosines (`embed_wordings`), rounded to four
    digits."""

    rank: int
    sentence: int
    similarity: float

    @property
    def ref(self) -> SentenceRef:
        return SentenceRef(self.rank, self.sentence)


def pack(matrix: NDArray[np.float32]) -> bytes:
    """(n, 384) → bytes. float16 costs at most 5e-4 of a cosine: below the rounding of a similarity."""
    return np.ascontiguousarray(matrix, dtype=np.float16).tobytes()


def unpack(packed: bytes | memoryview) -> NDArray[np.float32]:
    """bytes → (n, 384) float32."""
    return np.frombuffer(bytes(packed), dtype=np.float16).reshape(-1, DIMENSION).astype(np.float32)


@dataclass(frozen=True)
class Wording:
    """What one sentence is embedded as: ``titled``, under the last heading before it, and ``window``, between the
    sentences before and behind it. A sentence alone loses its subject; which of the two brings it back depends on the
    text."""

    titled: str
    window: str


def wordings(title: str, text: str) -> list[Wording]:
    """Of each sentence of `split_sentences(text)`."""
    heading = title.rpartition(" › ")[2].strip()
    sentences = split_sentences(text)
    return [
        Wording(f"{heading}: {sentence}" if heading else sentence, " ".join(sentences[max(0, i - 1) : i + 2]))
        for i, sentence in enumerate(sentences)
    ]


def embed_wordings(sentences: Sequence[Wording]) -> NDArray[np.float32]:
    """(n, 384): the mean of both unit vectors, so a product with a question is the mean of two cosines.

    Not scaled back to length 1: that would favour sentences whose two vectors disagree.
    """
    vectors = embed([s.titled for s in sentences] + [s.window for s in sentences])  # in one call: batches are by length
    return np.asarray((vectors[: len(sentences)] + vectors[len(sentences) :]) / 2, dtype=np.float32)


def sentence_matrices(passages: Sequence[tuple[str, str]]) -> list[bytes]:
    """Packed sentence vectors of many (title, text) at once: one embedding call, each distinct text once."""
    worded = [wordings(title, text) for title, text in passages]
    vectors = embed_wordings([sentence for sentences in worded for sentence in sentences])
    packed: list[bytes] = []
    start = 0
    for sentences in worded:
        packed.append(pack(vectors[start : start + len(sentences)]))
        start += len(sentences)
    return packed


def is_below(similarities: Iterable[float], threshold: float) -> bool:
    """Whether not even the best sentence is as similar as the threshold asks: then no passage speaks to the question,
    nothing is offered, and the question is declined. Never with a threshold of 0.

    The one place that decides it, for serving, evaluation and replay alike.
    """
    return threshold > 0 and max(similarities, default=-1.0) < threshold


def rank_evidence(
    *, question_vector: NDArray[np.float32], passages: Sequence[EvidencePassage], limit: int
) -> list[ScoredSentence]:
    """The ``limit`` sentences nearest to the question, best first; a sentence that stands in two passages counts once.

    Whether they are near enough to be offered is another question (`is_below`).

    Deterministic: similarities are rounded before they are compared, ties go by rank and place.

    Raises:
        ValueError: a passage's vectors do not fit its sentences (it was packed for another text).
    """
    scored: list[tuple[float, int, int, str]] = []
    for passage in passages:
        sentences = split_sentences(passage.text)
        matrix = unpack(passage.sentence_embeddings)
        if len(matrix) != len(sentences):
            raise ValueError(f"passage {passage.rank} has {len(sentences)} sentences and {len(matrix)} vectors")
        similarities = matrix @ question_vector.astype(np.float32)
        scored += [
            (-round(float(s), 4), passage.rank, i, text.casefold())
            for i, (s, text) in enumerate(zip(similarities, sentences, strict=True))
        ]
    chosen: list[ScoredSentence] = []
    said: set[str] = set()
    for negative, rank, index, text in sorted(scored):
        if text in said:
            continue
        said.add(text)
        chosen.append(ScoredSentence(rank, index, -negative))
        if len(chosen) == limit:
            break
    return chosen

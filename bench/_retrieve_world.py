"""Made-up vectors and texts for bench/retrieve.py, and rows of them as the platform loads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CLUSTERS, INNER, DIMENSION = 200, 24, 384
VOCABULARY, LENGTH = 30_000, 60
SENTENCES = 3
"""Of a chunk."""

Owner = tuple[int, int]
"""Ids of assistant and document."""


class World:
    """The same for the same seed. Questions are drawn apart from chunks, so that either may be left out."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.centres = rng.normal(size=(CLUSTERS, DIMENSION)).astype(np.float32)
        self.inner = rng.normal(size=(INNER, DIMENSION)).astype(np.float32)
        weights = 1 / np.arange(1, VOCABULARY + 1)
        self.chances = np.cumsum(weights / weights.sum())
        letters = np.array(list("bdfgklmnprtvz")), np.array(list("aeiou"))
        # Made of syllables that no stemmer shortens and no stop list holds.
        self.words = ["".join(letters[0][(n // 13**i) % 13] + letters[1][(n // 5**i) % 5] for i in range(4)) + "x"
                      for n in rng.permutation(VOCABULARY)]  # fmt: skip
        self.of_chunks = np.random.default_rng([seed, 1])
        self.of_questions = np.random.default_rng([seed, 2])

    def vectors(self, n: int, rng: np.random.Generator) -> np.ndarray:
        spread = rng.normal(size=(n, INNER)).astype(np.float32) @ self.inner
        made = self.centres[rng.integers(CLUSTERS, size=n)] + 0.4 * spread
        made += 0.3 * rng.normal(size=made.shape).astype(np.float32)
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)

    def texts(self, n: int) -> list[str]:
        picked = np.searchsorted(self.chances, self.of_chunks.random((n, LENGTH)))
        return [" ".join(self.words[i] for i in row) for row in picked]

    def question(self, kind: str) -> str:
        low, high = {"rare": (3_000, VOCABULARY), "mixed": (0, 3_000), "common": (0, 8)}[kind]
        return " ".join(self.words[i] for i in self.of_questions.integers(low, high, size=8))

    def rows(self, owners: Sequence[Owner], start: int) -> dict[Owner, list[Any]]:
        """What `knowledge.storing.copy_chunks` takes, per document, positions from ``start``. Vectors are packed here:
        in the platform that belongs to embedding."""
        from knowledge.chunking import ChunkText
        from knowledge.storing import Vectors

        vectors = self.vectors(len(owners), self.of_chunks)
        packed = np.stack([np.roll(vectors, shift, axis=1) for shift in range(SENTENCES)], axis=1).astype(np.float16)
        rows: dict[Owner, list[Any]] = {}
        for number, (owner, text) in enumerate(zip(owners, self.texts(len(owners)), strict=True)):
            chunk = ChunkText(headings=("Made up",), text=text, tokens=LENGTH)
            made = Vectors(vectors[number], packed[number].tobytes())
            rows.setdefault(owner, []).append((start + number, chunk, made))
        return rows

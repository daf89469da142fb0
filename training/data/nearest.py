"""How near a question is to those that were kept before it.

Products of matrices differ in their last bits with the number of threads and the shapes of their parts. Where that
could decide, the two vectors are multiplied exactly: the same input keeps the same rows on any machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


DOUBT = 1e-4
"""Products of 384 single-precision numbers are off by a hundredth of this."""


def exactly(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The product of two vectors, rounded once: numbers of single precision have exact products in double."""
    return math.fsum((one.astype(np.float64) * other.astype(np.float64)).tolist())


class Kept:
    """Unit vectors that grow one by one. Adding costs a copy only when the room is used up, so that n questions are
    compared with each other in n matrix products and not in n copies of all of them."""

    def __init__(self, room: int = 0, dimension: int = 384, *, half: bool = False) -> None:
        """``room``: how many will come at most, where that is known. ``half``: to be kept in half precision."""
        self._kind = np.float16 if half else np.float32
        self._rows: NDArray[np.floating] = np.zeros((room, dimension if room else 0), dtype=self._kind)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, vector: NDArray[np.float32]) -> None:
        if self._count == len(self._rows):
            grown = np.zeros((max(64, 2 * self._count), len(vector)), dtype=self._kind)
            grown[: self._count] = self._rows[: self._count] if self._count else 0
            self._rows = grown
        self._rows[self._count] = vector
        self._count += 1

    def similarity(self, vector: NDArray[np.float32]) -> float:
        """Highest cosine with any of them; −1 without any."""
        return float((self._rows[: self._count] @ vector).max()) if self._count else -1.0

    def reached(self, vectors: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
        """Of each row of ``vectors`` whether its cosine with any kept one is at least ``threshold``."""
        best = self.similarities(vectors)
        found: NDArray[np.bool_] = best >= threshold
        for i in np.flatnonzero(np.abs(best - threshold) < DOUBT):
            similar = self._rows[: self._count].astype(np.float32, copy=False) @ vectors[i]
            near = np.flatnonzero(similar > threshold - DOUBT)
            found[i] = any(exactly(self._rows[j], vectors[i]) >= threshold for j in near)
        return found

    def add_all(self, vectors: NDArray[np.float32]) -> None:
        """Rows of ``vectors``, for which there must be room."""
        self._rows[self._count : self._count + len(vectors)] = vectors
        self._count += len(vectors)

    def similarities(self, vectors: NDArray[np.float32], part: int = 8_192) -> NDArray[np.float32]:
        """As `similarity` of each row of ``vectors``, in products of ``part`` kept ones at a time."""
        best = np.full(len(vectors), -1.0, dtype=np.float32)
        for start in range(0, self._count, part):
            kept = self._rows[start : min(start + part, self._count)].astype(np.float32, copy=False)
            best = np.maximum(best, (vectors @ kept.T).max(axis=1))
        return best

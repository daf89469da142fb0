"""How near a question is to those that were kept before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Kept:
    """Unit vectors that grow one by one. Adding costs a copy only when the room is used up, so that n questions are
    compared with each other in n matrix products and not in n copies of all of them."""

    def __init__(self, room: int = 0, dimension: int = 384) -> None:
        """``room``: how many will come at most, where that is known."""
        self._rows: NDArray[np.float32] = np.zeros((room, dimension if room else 0), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, vector: NDArray[np.float32]) -> None:
        if self._count == len(self._rows):
            grown = np.zeros((max(64, 2 * self._count), len(vector)), dtype=np.float32)
            grown[: self._count] = self._rows[: self._count] if self._count else 0
            self._rows = grown
        self._rows[self._count] = vector
        self._count += 1

    def similarity(self, vector: NDArray[np.float32]) -> float:
        """Highest cosine with any of them; −1 without any."""
        return float((self._rows[: self._count] @ vector).max()) if self._count else -1.0

    def add_all(self, vectors: NDArray[np.float32]) -> None:
        """Rows of ``vectors``, for which there must be room."""
        self._rows[self._count : self._count + len(vectors)] = vectors
        self._count += len(vectors)

    def similarities(self, vectors: NDArray[np.float32], part: int = 8_192) -> NDArray[np.float32]:
        """As `similarity` of each row of ``vectors``, in products of ``part`` kept ones at a time."""
        best = np.full(len(vectors), -1.0, dtype=np.float32)
        for start in range(0, self._count, part):
            best = np.maximum(best, (vectors @ self._rows[start : min(start + part, self._count)].T).max(axis=1))
        return best

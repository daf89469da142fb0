"""Which of the questions that were kept is as near as a threshold, without multiplying each pair out.

Every vector has a short picture: its coordinates in a few directions along which the vectors differ most, and the
length of what these leave out. By Cauchy and Schwarz the product of two pictures is never below the product of the two
vectors; only pairs whose pictures reach the threshold are multiplied. What is decided does not depend on the
directions, so it is the same on any machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.data.nearest import DOUBT, exactly

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIRECTIONS = 63
"""And the length of the rest: on questions of a log one pair in a million reaches .9 with so many."""
SAMPLE = 4_096
"""Vectors that the directions are taken from."""
PART = 1_024
"""Kept ones at a time: 4 MB of products with as many new ones, which a core keeps near itself."""
PAIRS = 4_096
"""Pairs at a time that are multiplied out: 12 MB."""
CROWDED = 0.05
"""Share of pairs from which one product of all vectors is cheaper than many of two."""


class NearKept:
    """Vectors of which the caller has all in one block; what is kept are rows of it."""

    def __init__(self, block: NDArray[np.float16], room: int) -> None:
        """``block``: unit vectors, shape (n, d), in half precision. ``room``: how many will be kept at most."""
        self._block = block
        self._directions = _directions(block)
        self._rows = np.zeros(room, dtype=np.int64)
        self._pictures = np.zeros((room, self._directions.shape[1] + 1), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._block[rows].astype(np.float32)

    def add_all(self, rows: NDArray[np.int64]) -> None:
        """Rows of the block, for which there must be room."""
        end = self._count + len(rows)
        self._rows[self._count : end] = rows
        self._pictures[self._count : end] = self._pictured(self.vectors(rows))
        self._count = end

    def reached(self, vectors: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
        """Of each row of ``vectors`` whether its product with any kept one is at least ``threshold``."""
        found = np.zeros(len(vectors), dtype=np.bool_)
        pictures = self._pictured(vectors)
        for start in range(0, self._count, PART):
            kept = slice(start, min(start + PART, self._count))
            at_most = pictures @ self._pictures[kept].T
            # Of a flat array: the places of few in many are found some ten times as fast.
            near = np.flatnonzero(at_most >= threshold - DOUBT)
            if len(near) > CROWDED * at_most.size:
                products = vectors @ self.vectors(self._rows[kept]).T
                found |= products.max(axis=1) >= threshold + DOUBT
                near = np.flatnonzero(np.abs(products - threshold) < DOUBT)
            which, other = np.divmod(near, at_most.shape[1])
            self._decide(found, vectors, which, self._rows[kept][other], threshold)
        return found

    def _decide(
        self,
        found: NDArray[np.bool_],
        vectors: NDArray[np.float32],
        which: NDArray[np.int64],
        rows: NDArray[np.int64],
        threshold: float,
    ) -> None:
        """Multiplies out pairs of a new vector and a kept row, as far as nothing is found of the new one yet."""
        for start in range(0, len(which), PAIRS):
            ours, theirs = which[start : start + PAIRS], rows[start : start + PAIRS]
            ours, theirs = ours[~found[ours]], theirs[~found[ours]]
            kept = self.vectors(theirs)
            products = np.einsum("ij,ij->i", vectors[ours], kept)
            found[ours[products >= threshold + DOUBT]] = True
            for i in np.flatnonzero(np.abs(products - threshold) < DOUBT):
                if not found[ours[i]]:
                    found[ours[i]] = exactly(kept[i], vectors[ours[i]]) >= threshold

    def _pictured(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n, directions + 1). In double precision: a small rest is a difference of two large numbers."""
        exact = vectors.astype(np.float64)
        seen = exact @ self._directions
        rest = np.sqrt(np.maximum((exact**2).sum(axis=1) - (seen**2).sum(axis=1), 0.0))
        return np.column_stack([seen, rest]).astype(np.float32)


def _directions(block: NDArray[np.float16]) -> NDArray[np.float64]:
    """Orthonormal columns, those first along which a sample of the vectors is longest."""
    some = block[:: max(1, len(block) // SAMPLE)][:SAMPLE].astype(np.float64)
    _, vectors = np.linalg.eigh(some.T @ some)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS])

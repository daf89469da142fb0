"""How near a question is to those that were kept before it.

Products of matrices differ in their last bits with the number of threads and the shapes of their parts. Where that
could decide, the two vectors are multiplied exactly: the same input keeps the same rows on any machine.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


DOUBT = 1e-4
"""Products of 384 single-precision numbers are off by a hundredth of this."""


def one_core() -> AbstractContextManager[object]:
    """For products of parts as small as a build's: a second thread waits for its share in a loop, which takes several
    times the processor seconds of the product, on the core where the leak audit's helper works."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits


def exactly(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The product of two vectors, rounded once: numbers of single precision have exact products in double."""
    return math.fsum((one.astype(np.float64) * other.astype(np.float64)).tolist())


class Kept:
    """Unit vectors that grow one by one. Adding costs a copy only when the room is used up, so that n questions are
    compared with each other in n matrix products and not in n copies of all of them."""

    def __init__(self) -> None:
        self._rows: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)
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

"""Vectors of questions as they are stored: of turns by the database's type, of written and imported rows packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def numbers_of(stored: Any) -> NDArray[np.float32]:
    """A vector column's value: which type it has is the driver's choice."""
    return np.asarray(stored.to_list() if hasattr(stored, "to_list") else stored, dtype=np.float32)


def sent(data: bytes) -> NDArray[np.float32]:
    """Of what ``halfvec_send`` says: two short numbers, then the vector. As text it takes ten times as long to read."""
    return np.frombuffer(data, dtype=">f2", offset=4).astype(np.float32)


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), dtype=np.float32)


def packed(vector: NDArray[np.float32]) -> bytes:
    return vector.astype("<f2").tobytes()


def unpacked(data: bytes | memoryview) -> NDArray[np.float32]:
    return unit(np.frombuffer(data, dtype="<f2").astype(np.float32))

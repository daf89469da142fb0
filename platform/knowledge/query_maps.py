"""A learned step between a question's vector and the search: q → unit(q + (q Aᵀ) Bᵀ), of low rank.

It moves questions towards the passages that people and written questions say are right, and leaves passages where they
are: nothing is embedded anew, the index stays, taking it back is one click, and every assistant may have its own. (A
fine-tuned embedder would have to live beside the old one in every process, and all vectors would have to be made again
before anybody knows whether it is better.)
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from django.db import models

from assistants.models import Assistant
from knowledge.embedding import embedder_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class QueryMap(models.Model):
    """Weights of one map. Never changed: a retrieval configuration names it by its number."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="query_maps")
    number = models.PositiveIntegerField()
    rank = models.PositiveSmallIntegerField()
    down = models.BinaryField(help_text="A: float32, rank × dimensions.")
    up = models.BinaryField(help_text="B: float32, dimensions × rank.")
    embedder = models.CharField(max_length=64, help_text="Digest of the embedder whose vectors it moves.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("assistant", "-number")
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "number"], name="query_map_once")]

    def __str__(self) -> str:
        return f"Map {self.number}"


@dataclass(frozen=True)
class Weights:
    """``down`` has shape (rank, dimensions), ``up`` (dimensions, rank)."""

    down: NDArray[np.float32]
    up: NDArray[np.float32]

    def move(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors of shape (dimensions,) or (n, dimensions), and the same back."""
        moved = vectors + (vectors @ self.down.T) @ self.up.T
        lengths = np.linalg.norm(moved, axis=-1, keepdims=True)
        return np.asarray(moved / np.maximum(lengths, 1e-12), dtype=np.float32)


def moved(assistant: Assistant, number: int, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector as map ``number`` of the assistant moves it; as it is where that map is gone or of another embedder
    (a search that is a little worse is better than none; the log says so)."""
    weights = _weights(assistant.pk, number, embedder_digest())
    return vector if weights is None else weights.move(vector)


def is_usable(assistant: Assistant, number: int) -> bool:
    return QueryMap.objects.filter(assistant=assistant, number=number, embedder=embedder_digest()).exists()


@lru_cache(maxsize=64)
def _weights(assistant: int, number: int, embedder: str) -> Weights | None:
    """Rows never change, so a process reads each once."""
    row = QueryMap.objects.filter(assistant=assistant, number=number, embedder=embedder).first()
    if row is None:
        logger.warning("Map %d of assistant %d is gone or of another embedder: searched without it.", number, assistant)
        return None
    down = np.frombuffer(bytes(row.down), dtype="<f4").reshape(row.rank, -1)
    up = np.frombuffer(bytes(row.up), dtype="<f4").reshape(-1, row.rank)
    return Weights(down, up)

"""How near turns are to what the assistant knows already: its documents, or the questions that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import OuterRef, Subquery

from assistants.models import Assistant
from capture.models import Turn
from knowledge.models import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DOCUMENTS = "documents"
TRAINING = "training"
CHOICES = ((DOCUMENTS, "Far from every document"), (TRAINING, "Far from every question of the last dataset"))
MAX_TRAINED = 50_000
"""Of the last dataset's logged questions; a dataset that holds more is compared by its newest."""
_BLOCK = 2_000


def similarity_to_documents(turns: Sequence[UUID], assistant: Assistant) -> dict[UUID, float]:
    """{turn: cosine of its question and the nearest chunk}; turns without a vector, and those of an assistant without
    documents, are not in it."""
    from pgvector.django import CosineDistance

    distance = CosineDistance("embedding", OuterRef("embedding"))
    nearest = Chunk.objects.filter(assistant=assistant).order_by(distance).values(distance_to=distance)[:1]
    with transaction.atomic():
        with connection.cursor() as cursor:  # as in retrieval: a small assistant beside large ones would find nothing
            cursor.execute("SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true)")
        rows = Turn.objects.filter(pk__in=turns, embedding__isnull=False).order_by()
        found = rows.annotate(nearest=Subquery(nearest)).values_list("pk", "nearest")
        return {pk: 1.0 - float(distance) for pk, distance in found if distance is not None}


def similarity_to_training(turns: Mapping[UUID, NDArray[np.float32]], assistant: Assistant) -> dict[UUID, float]:
    """{turn: cosine of its question and the nearest logged question of the assistant's last dataset}.

    Args:
        turns: vectors by turn.

    Returns:
        Nothing where no dataset was built yet, or none of its rows comes from the log.
    """
    import numpy as np

    if not turns:
        return {}
    own = unit(np.stack(list(turns.values())))
    best = np.full(len(own), -np.inf, dtype=np.float32)
    for block in _trained(assistant):
        best = np.maximum(best, (own @ block.T).max(axis=1))
    return {key: float(value) for key, value in zip(turns, best, strict=True) if np.isfinite(value)}


def vectors_of(turns: Sequence[UUID]) -> dict[UUID, NDArray[np.float32]]:
    """{turn: vector of its question}, in the order given, without those that have none."""
    rows = Turn.objects.filter(pk__in=turns, embedding__isnull=False).order_by().values_list("pk", "embedding")
    found = {pk: _array(stored) for pk, stored in rows}
    return {key: found[key] for key in turns if key in found}


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1, so that a product is a cosine."""
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)


def _trained(assistant: Assistant) -> Iterator[NDArray[np.float32]]:
    """Vectors of the last dataset's logged questions, in blocks.

    Datasets belong to a later room, which this one may not import: they are reached by relation names, as the page of a
    turn does.
    """
    import numpy as np

    datasets: Any = assistant.datasets
    last = datasets.filter(state="succeeded", rows__gt=0).order_by("-number").values_list("pk", flat=True).first()
    if last is None:
        return
    inside = Turn.objects.filter(examples__dataset=last).values("pk")
    rows = (
        Turn.objects.filter(pk__in=inside, embedding__isnull=False).newest_first().values_list("embedding", flat=True)
    )
    block: list[NDArray[np.float32]] = []
    for stored in rows[:MAX_TRAINED].iterator(chunk_size=_BLOCK):
        block.append(_array(stored))
        if len(block) == _BLOCK:
            yield unit(np.stack(block))
            block = []
    if block:
        yield unit(np.stack(block))


def _array(stored: Any) -> NDArray[np.float32]:
    import numpy as np

    return np.asarray(stored.to_list() if hasattr(stored, "to_list") else stored, dtype=np.float32)

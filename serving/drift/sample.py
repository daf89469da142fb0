"""Which questions are compared: those of a window of traffic, and those that the adapter has learned from.

One of each conversation: questions of one conversation are alike, and a test that takes them for independent sees drift
in every talkative user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from annotations.novelty import vectors_of
from assistants.models import Assistant
from capture.models import Retrieval, Turn
from training.models import DatasetVersion, Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 1_000
"""Of each side: beyond it the tests find differences that matter to nobody."""
LOOKED_AT = 20_000
ENOUGH_REAL = 100
"""Logged questions in a dataset from which on its written ones are left out: users write otherwise than any program,
and that difference is not drift."""


@dataclass(frozen=True)
class Window:
    """Questions of users: keys and vectors in one order."""

    keys: list[UUID]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Rows of the dataset: keys and vectors in one order; ``logged``: only questions that users asked are in it."""

    keys: list[int]
    vectors: NDArray[np.float32]
    logged: bool


def window(assistant: Assistant, since: datetime, until: datetime, *, without: DatasetVersion) -> Window:
    """Of the newest 20,000 turns that users asked from ``since`` to before ``until``, one of each conversation, `MOST`
    at most; what the dataset was made of is left out."""
    learnt = Example.objects.filter(dataset=without, turn__isnull=False).values("turn")
    rows = Turn.objects.of(assistant).asked_by_users()
    rows = rows.filter(asked_at__gte=since, asked_at__lt=until, embedding__isnull=False)
    pairs = rows.exclude(pk__in=learnt).newest_first().values_list("pk", "conversation")[:LOOKED_AT]
    keys = _one_each(pairs, MOST)
    vectors = vectors_of(keys)
    return Window(list(vectors), _stack(list(vectors.values())))


def reference(dataset: DatasetVersion, assistant: Assistant) -> Reference:
    """What the dataset asked. Questions that were logged bring their stored vector; written ones are embedded here."""
    rows = dataset.examples.filter(erased_at=None).order_by("pk")
    logged = rows.filter(turn__embedding__isnull=False).values_list("pk", "turn__conversation")
    keys = _one_each(logged, MOST)
    if len(keys) >= ENOUGH_REAL:
        turns = dict(Example.objects.filter(pk__in=keys).values_list("pk", "turn"))
        vectors = vectors_of([key for key in turns.values() if key is not None])
        found = [(key, vectors[turn]) for key in keys if (turn := turns[key]) in vectors]
        return Reference([key for key, _ in found], _stack([vector for _, vector in found]), logged=True)
    texts = rows.values_list("pk", "question", "history")
    distinct: dict[str, tuple[int, list[Any]]] = {}
    for key, question, history in texts.iterator(chunk_size=2_000):
        distinct.setdefault(question, (key, history))
    chosen = _one_each(((key, question) for question, (key, _) in distinct.items()), MOST)
    by_key = {key: (question, history) for question, (key, history) in distinct.items()}
    return Reference(chosen, _embedded([by_key[key] for key in chosen], assistant), logged=False)


def best_similarities(window_keys: Sequence[UUID]) -> dict[UUID, float]:
    """{turn: similarity of the best sentence that was offered}; of turns of our chat."""
    best: dict[UUID, float] = {}
    rows = Retrieval.objects.filter(turn__in=window_keys).exclude(evidence=[]).order_by()
    for turn, offered in rows.values_list("turn", "evidence"):
        found = max((float(row[2]) for row in offered if len(row) == 3), default=-1.0)
        best[turn] = max(found, best.get(turn, -1.0))
    return best


def _one_each(pairs: Iterable[tuple[Any, Any]], most: int) -> list[Any]:
    """One key of each group, and ``most`` of them at most: drawn by hash, so that the same rows give the same draw."""
    chosen: dict[Any, tuple[bytes, Any]] = {}
    for key, group in pairs:
        drawn = hashlib.sha256(str(key).encode()).digest()
        if group not in chosen or drawn < chosen[group][0]:
            chosen[group] = (drawn, key)
    return [key for _, key in sorted(chosen.values(), key=lambda one: one[0])[:most]]


def _stack(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    import numpy as np

    return np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)


def _embedded(asked: Sequence[tuple[str, list[Any]]], assistant: Assistant) -> NDArray[np.float32]:
    from knowledge.query import question_vectors

    return question_vectors(asked, assistant.glossary) if asked else _stack([])

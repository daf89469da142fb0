"""Does the index find what an exact search finds? Asked of a sample of the assistant's own chunks.

The vectors of chunks stand in for questions, each turned a little: a chunk's own vector would find itself first
wherever the index begins. Both searches run as they do for a question, so the figure is the recall that users get.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean, median

import numpy as np
from django.db import connection, transaction

from assistants.models import Assistant
from knowledge import candidates
from knowledge.configuration import RetrievalSettings, settings_of
from knowledge.lexicon import Terms
from knowledge.query import Query
from knowledge.retrieval_models import RetrievalCheck

SAMPLE = 100
MAX_SAMPLE = 1000
AT = 10
TURN = 0.3
"""Length of the random part beside a chunk's unit vector: its cosine to its own chunk is then .96."""


@dataclass(frozen=True)
class SelfTest:
    """``recall``: mean share of the exact first ten that the index finds; ``worst``: the lowest of one question.
    ``path``: which of both serves this assistant now. Milliseconds are medians."""

    chunks: int
    asked: int
    recall: float
    worst: float
    path: str
    index_ms: float
    exact_ms: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class NothingToTest(ValueError):
    """The assistant has no chunks."""


def self_test(
    *, assistant: Assistant, sample: int = SAMPLE, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> SelfTest:
    """
    Raises:
        NothingToTest: the assistant has no documents.
    """
    settings = settings_of(assistant).model_copy(update={"words": 0.0, "vectors": 1.0, "candidates": AT})
    vectors = sample_vectors(assistant, max(1, min(sample, MAX_SAMPLE)), seed)
    if not len(vectors):
        raise NothingToTest("There are no documents to search yet.")
    shares, times = [], {True: [0.0], False: [0.0]}
    for done, vector in enumerate(vectors, start=1):
        found: dict[bool, set[int]] = {}
        for exact in (True, False):
            started = time.perf_counter()
            found[exact] = nearest(assistant, vector, settings, exact=exact)
            times[exact].append((time.perf_counter() - started) * 1000)
        shares.append(len(found[True] & found[False]) / max(1, len(found[True])))
        if progress and done % 10 == 0:
            progress(done, len(vectors))
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM knowledge_chunk WHERE assistant_id = %s", [assistant.pk])
        chunks = int(cursor.fetchone()[0])
    return SelfTest(
        chunks=chunks,
        asked=len(vectors),
        recall=round(fmean(shares), 4),
        worst=round(min(shares), 4),
        path="exact" if chunks <= candidates.EXACT_BELOW else "index",
        index_ms=round(median(times[False][1:]), 2),
        exact_ms=round(median(times[True][1:]), 2),
    )


def perform(check: RetrievalCheck) -> None:
    """
    Raises:
        NothingToTest: the assistant has no documents.
    """
    check.beat(stage="asking the index and searching exactly", done=0, total=SAMPLE)
    result = self_test(assistant=check.assistant, progress=lambda done, total: check.beat(done=done, total=total))
    check.result = result.as_dict()
    check.save(update_fields=["result"])


def nearest(assistant: Assistant, vector: np.ndarray, settings: RetrievalSettings, *, exact: bool) -> set[int]:
    """Ids of the first chunks by vectors alone, by the statement that serves questions."""
    query = Query.plain("", vector)
    with transaction.atomic(), connection.cursor() as cursor:
        candidates.size_of(cursor, assistant)  # sets how the index scans
        if not exact:
            # A planner that sorts a small table instead would make this a comparison of exact with exact.
            cursor.execute("SELECT set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true)")
        sql, params = candidates.statement(
            assistant=assistant, vector=query.vector, terms=Terms(), settings=settings, average_length=1, exact=exact
        )
        cursor.execute(sql, params)
        return {row[0] for row in cursor.fetchall()}


def sample_vectors(assistant: Assistant, sample: int, seed: int) -> np.ndarray:
    """Unit vectors near chunks of the assistant, shape (n, 384); the same for the same seed and chunks."""
    with connection.cursor() as cursor:
        # A slice of the ids in an order that has nothing to do with how they were loaded.
        cursor.execute(
            "SELECT embedding::text FROM knowledge_chunk WHERE assistant_id = %s "
            "ORDER BY hashint8extended(id, %s) LIMIT %s",
            [assistant.pk, seed, sample],
        )
        rows = [np.fromstring(text.strip("[]"), sep=",", dtype=np.float32) for (text,) in cursor.fetchall()]
    if not rows:
        return np.zeros((0, 384), dtype=np.float32)
    vectors = np.stack(rows)
    turned = np.random.default_rng(seed).normal(size=vectors.shape).astype(np.float32)
    vectors += TURN * turned / np.linalg.norm(turned, axis=1, keepdims=True)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

"""Does the index find what an exact search finds? Asked of a sample of the assistant's own chunks.

What is asked is a chunk moved as chunks differ from each other, so far that it has a cosine of NEARNESS with where it
was. Of 34,000 sentences and stretches of real pages, an index then misses as much as for users' questions about them
(docs/log.md); half way between two chunks drawn at random, where nobody asks, it misses forty times as much, close to a
chunk next to nothing. Both searches run as they do for a question, so the figure is the recall that users get.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean, median

import numpy as np
from django.db import connection

from assistants.models import Assistant
from assistants.prepared import run_prepared
from knowledge import candidates
from knowledge.configuration import RetrievalSettings, settings_of
from knowledge.lexicon import Terms
from knowledge.retrieval_models import RetrievalCheck

SAMPLE = 200
MAX_SAMPLE = 1000
AT = 10
NEARNESS = 0.8
WIDTHS = (100, 110, 120, 130, 140, 150, 160, 175, 200, 225, 250, 300, 350, 400, 500, 600)
"""Of search (``hnsw.ef_search``) that are tried, narrowest first: the time of a search grows with it."""
ENOUGH = 0.995
"""Recall from which a width is taken: above .99, which is promised, since the sample is small."""


@dataclass(frozen=True)
class SelfTest:
    """``recall``: mean share of the exact first ten that the index finds; ``worst``: the lowest of one question.
    ``path``: which of both serves this assistant now. Milliseconds are medians; None:
    there is no index."""

    chunks: int
    asked: int
    recall: float
    worst: float
    path: str
    index_ms: float | None
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
    ef_search = candidates.size_and_words(assistant, ())[0].ef_search
    shares: list[float] = []
    times: dict[bool, list[float]] = {True: [], False: []}
    for done, vector in enumerate(vectors, start=1):
        found: dict[bool, set[int]] = {}
        for exact in (True,) if ef_search is None else (True, False):
            started = time.perf_counter()
            found[exact] = nearest(assistant, vector, settings, ef_search=None if exact else ef_search)
            times[exact].append((time.perf_counter() - started) * 1000)
        shares.append(len(found[True] & found.get(False, found[True])) / max(1, len(found[True])))
        if progress and done % 10 == 0:
            progress(done, len(vectors))
    return SelfTest(
        chunks=_chunks(assistant),
        asked=len(vectors),
        recall=round(fmean(shares), 4),
        worst=round(min(shares), 4),
        path="exact" if ef_search is None else "index",
        index_ms=round(median(times[False]), 2) if times[False] else None,
        exact_ms=round(median(times[True]), 2),
    )


def calibrate(assistant: Assistant, *, progress: Callable[[int, int], None] | None = None) -> tuple[int, float]:
    """How widely the assistant's index must be searched to find ENOUGH, and the recall that this gives.

    Raises:
        NothingToTest: the assistant has no documents.
    """
    settings = settings_of(assistant).model_copy(
        update={"words": 0.0, "vectors": 1.0, "candidates": AT, "folders": (), "superseded": True}
    )
    vectors = sample_vectors(assistant, SAMPLE, seed=1)
    if not len(vectors):
        raise NothingToTest("There are no documents to search yet.")
    exact = []
    for done, vector in enumerate(vectors, start=1):
        exact.append(nearest(assistant, vector, settings, ef_search=None))
        if progress:
            progress(done, len(vectors))
    recall = 0.0
    for ef_search in WIDTHS:
        found = [nearest(assistant, vector, settings, ef_search=ef_search) for vector in vectors]
        recall = round(fmean(len(a & b) / max(1, len(a)) for a, b in zip(exact, found, strict=True)), 4)
        if recall >= ENOUGH:
            break
    return ef_search, recall


def _chunks(assistant: Assistant) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM knowledge_chunk WHERE assistant_id = %s", [assistant.pk])
        return int(cursor.fetchone()[0])


def perform(check: RetrievalCheck) -> None:
    """
    Raises:
        NothingToTest: the assistant has no documents.
    """
    check.beat(stage="asking the index and searching exactly", done=0, total=SAMPLE)
    result = self_test(assistant=check.assistant, progress=lambda done, total: check.beat(done=done, total=total))
    check.result = result.as_dict()
    check.keep("result")


def nearest(
    assistant: Assistant, vector: np.ndarray, settings: RetrievalSettings, *, ef_search: int | None
) -> set[int]:
    """Ids of the first chunks by vectors alone, by the statement that serves questions; ``ef_search`` None: exactly."""
    sql, params = candidates.statement(
        assistant=assistant, vector=vector, terms=Terms(), settings=settings, average_length=1, ef_search=ef_search
    )
    return {row[0] for row in run_prepared(sql, params)}


def sample_vectors(assistant: Assistant, sample: int, seed: int) -> np.ndarray:
    """Unit vectors like questions, shape (n, 384), one for each of at most ``sample`` chunks of the assistant; the same
    for the same seed and chunks."""
    with connection.cursor() as cursor:
        # A slice of the ids in an order that has nothing to do with how they were loaded.
        cursor.execute(
            "SELECT embedding::text FROM knowledge_chunk WHERE assistant_id = %s "
            "ORDER BY hashint8extended(id, %s) LIMIT %s",
            [assistant.pk, seed, sample],
        )
        read = [np.fromstring(text.strip("[]"), sep=",", dtype=np.float32) for (text,) in cursor.fetchall()]
    if not read:
        return np.zeros((0, 384), dtype=np.float32)
    chunks = np.stack(read)
    # Two differences of chunks: one alone leads straight from one chunk to another.
    other = [np.roll(chunks, by, axis=0) for by in (1, 2, 3, 5)]
    moved = other[0] - other[1] + other[2] - other[3]
    return _unit(NEARNESS * chunks + (1 - NEARNESS**2) ** 0.5 * _unit(moved))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """What has no length (the difference of two chunks that are the same) stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)

"""What is known of right passages: marks and missed passages of annotators, and the questions that were written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from annotations.models import ContextMark
from assistants.models import Assistant
from generation.prompts import Message
from knowledge.models import EMBEDDING_DIMENSION, Chunk
from training.data.leakage import find_leaks
from training.models import BenchmarkItem, Kind, SyntheticItem
from training.retrieval.learning import MAX_PAIRS, Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR_DUPLICATE = 0.9
MAX_CHUNKS = 200_000
"""Vectors of 384 float32 that are held at once: 300 MB."""


@dataclass
class Gathered:
    """``asked``: (question, history) of each pair; ``passages``: vectors of all chunks, shape (m, 384). ``dropped``:
    why how many were left out."""

    asked: list[tuple[str, Sequence[Message]]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    passages: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 384), dtype=np.float32))

    def add(self, source: str, asked: tuple[str, Sequence[Message]], pair: Pair) -> None:
        self.asked.append(asked)
        self.pairs.append(pair)
        self.sources[source] = self.sources.get(source, 0) + 1

    def drop(self, why: str, count: int = 1) -> None:
        if count:
            self.dropped[why] = self.dropped.get(why, 0) + count


def gather(assistant: Assistant) -> Gathered:
    """Of labels that stand and of questions that the filters kept; nothing that a benchmark asks, or nearly asks."""
    found = Gathered()
    place, by_digest, found.passages = _chunks(assistant)
    _labelled(assistant, by_digest, found)
    _written(assistant, place, found)
    _guard(assistant, found)
    return found


def _chunks(assistant: Assistant) -> tuple[dict[int, int], dict[str, int], NDArray[np.float32]]:
    """Row of each chunk by its key and by its digest, and the vectors. In one query: a document that is deleted between
    two would move every row after it."""
    rows = (
        Chunk.objects.filter(assistant=assistant).order_by("pk").values_list("pk", "digest", "embedding")[:MAX_CHUNKS]
    )
    place: dict[int, int] = {}
    by_digest: dict[str, int] = {}
    made: list[NDArray[np.float32]] = []
    for pk, digest, vector in rows.iterator(2000):
        place[pk] = by_digest[digest] = len(made)
        made.append(np.asarray(vector, np.float32))
    return place, by_digest, np.stack(made) if made else np.empty((0, EMBEDDING_DIMENSION), np.float32)


def _labelled(assistant: Assistant, by_digest: dict[str, int], found: Gathered) -> None:
    import hashlib

    marks = (
        ContextMark.objects.filter(
            annotation__turn__assistant=assistant, annotation__replaced_by=None, annotation__withdrawn_at=None
        )
        .exclude(relevance=ContextMark.Relevance.UNSURE)
        .select_related("annotation__turn", "retrieval__passage")
        .defer("annotation__turn__embedding", "annotation__turn__words", "retrieval__passage__sentence_embeddings")
        .order_by("annotation__turn_id", "pk")[: MAX_PAIRS * 10]
    )
    turns: dict[Any, tuple[Any, set[int], set[int]]] = {}
    for mark in marks.iterator(chunk_size=2000):
        turn = mark.annotation.turn
        _, right, wrong = turns.setdefault(turn.pk, (turn, set(), set()))
        row = by_digest.get(hashlib.sha256(mark.retrieval.passage.text.encode()).hexdigest())
        if row is None:
            found.drop("the marked passage is no chunk of the documents any more")
        else:
            (right if mark.relevance == ContextMark.Relevance.RELEVANT else wrong).add(row)
    for turn, row in _missed(assistant, by_digest):
        turns.setdefault(turn.pk, (turn, set(), set()))[1].add(row)
    for turn, right, wrong in turns.values():
        if not right:
            found.drop("no passage of the turn is right")
            continue
        pair = Pair(tuple(sorted(right)), f"conversation {turn.conversation_id}", tuple(sorted(wrong - right)))
        found.add("labels", (turn.question, turn.history), pair)


def _missed(assistant: Assistant, by_digest: dict[str, int]) -> Iterator[tuple[Any, int]]:
    from annotations.models import MissedPassage

    rows = MissedPassage.objects.filter(
        annotation__turn__assistant=assistant, annotation__replaced_by=None, annotation__withdrawn_at=None
    ).select_related("annotation__turn")
    for missed in rows.defer("annotation__turn__embedding", "annotation__turn__words")[:MAX_PAIRS]:
        if (row := by_digest.get(missed.digest)) is not None:
            yield missed.annotation.turn, row


def _written(assistant: Assistant, place: dict[int, int], found: Gathered) -> None:
    rows = SyntheticItem.objects.filter(
        synthesis__assistant=assistant, dropped_by="", kind=Kind.ANSWER, chunk__isnull=False
    )
    rows = rows.exclude(spot_check__verdict="bad").order_by("-pk")
    for pk, question, history, source in rows.values_list("chunk_id", "question", "history", "source")[:MAX_PAIRS]:
        if pk in place:
            found.add("written questions", (question, history), Pair((place[pk],), f"document {source}"))


def _guard(assistant: Assistant, found: Gathered) -> None:
    items = list(BenchmarkItem.objects.filter(benchmark__assistant=assistant).values_list("question", "history"))
    leaks = {leak.row for leak in find_leaks(rows=found.asked, items=items, threshold=NEAR_DUPLICATE)}
    found.drop("a benchmark asks it", len(leaks))
    found.asked = [asked for n, asked in enumerate(found.asked) if n not in leaks]
    found.pairs = [pair for n, pair in enumerate(found.pairs) if n not in leaks]

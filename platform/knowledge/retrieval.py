"""Which passages speak to a question: vectors and words, fused, then ordered with the help of their best sentence.

`knowledge.configuration` says by what settings, `knowledge.query` what is searched, `knowledge.candidates` how the
database finds it, `knowledge.fusion` how two opinions become one. Sentence vectors are stored, so comparing sentences
costs one small matrix product.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from assistants.models import Assistant
from assistants.prepared import run_prepared
from generation.prompts import Message
from knowledge import candidates
from knowledge.candidates import Candidates, Opening
from knowledge.configuration import RetrievalSettings, config_digest, settings_of
from knowledge.configuring import note_active
from knowledge.embedding import rerank
from knowledge.evidence import EvidencePassage, ScoredSentence, is_below, rank_evidence, unpack
from knowledge.fusion import by_rank, scaled, weighted
from knowledge.query import Pending, Query, begin, prepare
from knowledge.query_maps import moved

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RetrievalResult", "RetrievedPassage", "config_digest", "evidence_for", "retrieve", "search"]

MAX_TITLE_PART = 240
"""Characters of a heading in a passage's title: two of them fit what capture stores."""


@dataclass(frozen=True)
class RetrievedPassage:
    rank: int
    chunk_id: int
    title: str
    source: str
    text: str
    score: float
    sentence_embeddings: bytes = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RetrievalResult:
    """``evidence``: the sentences offered. ``below``: those that would have been, had the best of them not been
    less similar than the threshold; then nothing is offered, and the question is declined without asking a model."""

    passages: list[RetrievedPassage]
    evidence: list[ScoredSentence]
    config_digest: str
    query_vector: NDArray[np.float32] = field(repr=False)
    seconds: float
    below: list[ScoredSentence] = field(default_factory=list)
    withheld: bool = False
    """Nothing is offered because of the threshold."""


def retrieve(
    *,
    assistant: Assistant,
    question: str,
    history: Sequence[Message] = (),
    k: int | None = None,
    vector: NDArray[np.float32] | None = None,
    query: Query | Pending | None = None,
    settings: RetrievalSettings | None = None,
) -> RetrievalResult:
    """The passages for a question in rank order and the sentences of them that are offered as evidence.

    Args:
        k: how many passages; the settings' own number when not given.
        vector: of `question_vectors`, where many questions were embedded at once; passages are then searched by it too.
        query: of `knowledge.query.prepare`, where everything was embedded at once, or of `begin_query`.
        settings: others than the assistant's active ones.

    Raises:
        generation.engines.EngineUnavailable: the engine does not answer (web processes only).
    """
    started = time.perf_counter()
    if query is None and vector is not None:
        how = (settings or settings_of(assistant)).history
        (query,) = prepare(
            [(question, history)], glossary=assistant.glossary, history=how, evidence=vector[np.newaxis]
        )  # fmt: skip
    elif query is None:
        query = begin_query(assistant=assistant, question=question, history=history, settings=settings)
    if settings is None:
        note_active(assistant)
        settings = settings_of(assistant)
    opened = None
    if isinstance(query, Pending):
        started = query.begun
        opened = candidates.opening(assistant, query.parts, settings) if query.beside else None
        query = query.ready()
    passages = search(assistant=assistant, query=query, k=k or settings.k, settings=settings, opened=opened)
    ranked = evidence_for(assistant=assistant, vector=query.evidence, passages=passages, settings=settings)
    withheld = is_below((one.similarity for one in ranked), settings.evidence_threshold)
    return RetrievalResult(
        passages=passages,
        evidence=[] if withheld else ranked,
        config_digest=config_digest(assistant, settings),
        query_vector=query.evidence,
        seconds=time.perf_counter() - started,
        below=ranked if withheld else [],
        withheld=withheld,
    )


def begin_query(
    *, assistant: Assistant, question: str, history: Sequence[Message], settings: RetrievalSettings | None
) -> Pending:
    """Has the question embedded as `retrieve` will search it by these settings (None: the active ones)."""
    how = settings or settings_of(assistant)
    return begin(question, history, glossary=assistant.glossary, history=how.history)


def evidence_for(
    *,
    assistant: Assistant,
    vector: NDArray[np.float32],
    passages: Sequence[RetrievedPassage],
    settings: RetrievalSettings | None = None,
) -> list[ScoredSentence]:
    """The sentences of these passages that are nearest, whatever the threshold."""
    settings = settings or settings_of(assistant)
    return rank_evidence(
        question_vector=vector,
        passages=[EvidencePassage(p.rank, p.text, p.sentence_embeddings) for p in passages],
        limit=settings.evidence_sentences,
    )


def search(
    *,
    assistant: Assistant,
    query: Query | str,
    k: int,
    vector: NDArray[np.float32] | None = None,
    exact: bool | None = None,
    settings: RetrievalSettings | None = None,
    opened: Opening | None = None,
) -> list[RetrievedPassage]:
    """Hybrid search; the first of it are the same for every k.

    Args:
        query: made by `prepare`, or a text without history together with its ``vector``.
        exact: forces a path; by default size decides.
        opened: of `candidates.opening`, where it was asked already.
    """
    if isinstance(query, str):
        if vector is None:
            raise TypeError("a text is searched with its vector")
        query = Query.plain(query, vector)
    settings = settings or settings_of(assistant)
    if settings.learned:
        query = replace(query, vector=moved(assistant, settings.learned, query.vector))
    found = candidates.find(assistant=assistant, query=query, settings=settings, exact=exact, opened=opened)
    scores = fused(found, settings)
    # Only so many are looked at, however many are asked for: the first k must be the same for every larger k.
    looked = settings.reordered if settings.rerank or settings.sentences else 0
    order = sorted(scores, key=lambda pk: (-scores[pk], pk))[: max(k, looked)]
    rows = _rows(order)
    order = [pk for pk in order if pk in rows]
    near = order[:looked]
    scores |= looked_at(near, rows, scores, query, settings)
    order = sorted(near, key=lambda pk: (-scores[pk], pk)) + order[looked:]
    return [_passage(rank, pk, rows[pk], scores[pk]) for rank, pk in enumerate(order[:k], start=1)]


def fused(found: Candidates, settings: RetrievalSettings) -> dict[int, float]:
    """One score from 0 to 1 for each candidate."""
    listed = settings.candidates
    if settings.fusion == "ranks":
        words, vectors = (by_rank(s, listed, settings.rank_constant) for s in (found.weight, found.similarity))
    else:
        words, vectors = scaled(found.weight, listed, floor=0.0), scaled(found.similarity, listed)
    return weighted([(settings.words, words), (settings.vectors, vectors)])


def looked_at(
    near: Sequence[int],
    rows: dict[int, Any],
    scores: dict[int, float],
    query: Query,
    settings: RetrievalSettings,
) -> dict[int, float]:
    """New scores of the first candidates: with their best sentence, or by the cross-encoder alone."""
    if not near:
        return {}
    if settings.rerank:
        read = rerank(query.text, [f"{_title(rows[pk][0])}\n{rows[pk][2]}" for pk in near])
        return scaled(dict(zip(near, read, strict=True)), len(near))
    if not settings.sentences:
        return {}
    best = {pk: round(float((unpack(rows[pk][3]) @ query.evidence).max(initial=-1.0)), 4) for pk in near}
    sentences = (
        by_rank(best, len(near), settings.rank_constant) if settings.fusion == "ranks" else scaled(best, len(near))
    )
    before = settings.words + settings.vectors
    return weighted([(before, {pk: scores[pk] for pk in near}), (settings.sentences, sentences)])


def _rows(keys: Sequence[int]) -> dict[int, Any]:
    """id → (headings, path, text, packed sentence vectors), of the few that may be shown."""
    found = run_prepared(
        "SELECT chunk.id, chunk.headings, document.path, chunk.text, chunk.sentence_embeddings "
        "FROM knowledge_chunk AS chunk JOIN knowledge_document AS document ON document.id = chunk.document_id "
        "WHERE chunk.id = ANY(%(keys)s::bigint[])",
        {"keys": list(keys)},
    )
    return {row[0]: row[1:] for row in found}


def _passage(rank: int, pk: int, row: Any, score: float) -> RetrievedPassage:
    headings, path, text, packed = row
    return RetrievedPassage(
        rank=rank,
        chunk_id=pk,
        title=_title(headings),
        source=path,
        text=text,
        score=round(score, 6),
        sentence_embeddings=bytes(packed),
    )


def _title(headings: Sequence[str]) -> str:
    """Document and section: the levels between say little and cost context."""
    return " › ".join(heading[:MAX_TITLE_PART] for heading in dict.fromkeys((headings[0], headings[-1])))

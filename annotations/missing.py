"""What retrieval missed: searching the knowledge base beside an item, and keeping what was found with the label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.contrib.postgres.search import SearchQuery, SearchRank
from django.core.exceptions import ValidationError
from django.db.models import F

from annotations.models import MAX_MISSED, Annotation, MissedPassage
from annotations.validation import clean_text
from assistants.models import Assistant
from capture.models import Passage, Turn
from generation.engines import EngineUnavailable
from knowledge.embedding import embed
from knowledge.models import Chunk
from knowledge.query import history_query
from knowledge.retrieval import search

FOUND = 8
MAX_QUERY = 300
EMBED_SECONDS = 2.0
"""How long a search waits for the engine before it goes by words alone."""
ADDED_CHARS = 400
"""Characters of an added passage that the form shows."""


@dataclass(frozen=True)
class Found:
    """One passage of the knowledge base. ``rank``: it was retrieved, as this one; None: retrieval missed it."""

    chunk_id: int
    title: str
    source: str
    text: str
    rank: int | None = None


@dataclass(frozen=True)
class Search:
    query: str
    found: tuple[Found, ...]
    by_meaning: bool
    """False: the engine does not answer, so only words were compared."""


def search_passages(turn: Turn, query: str) -> Search:
    """The passages of the assistant's documents that speak to ``query``, best first, `FOUND` at most.

    Raises:
        ValidationError: an empty query, or one of more than `MAX_QUERY` characters.
    """
    query = clean_text(query)
    if not query:
        raise ValidationError({"query": ["Say in a few words what to look for."]})
    if len(query) > MAX_QUERY:
        raise ValidationError({"query": [f"At most {MAX_QUERY} characters, please."]})
    ranks = _retrieved(turn)
    asked = history_query(query, (), turn.assistant.glossary)
    try:
        vector = embed([asked], seconds=EMBED_SECONDS)[0]
    except EngineUnavailable:
        return Search(query, _by_words(turn.assistant, query, ranks), by_meaning=False)
    hits = search(assistant=turn.assistant, query=asked, vector=vector, k=FOUND)
    found = (Found(hit.chunk_id, hit.title, hit.source, hit.text, ranks.get(hit.text)) for hit in hits)
    return Search(query, tuple(found), by_meaning=True)


def chunks_to_add(turn: Turn, keys: Collection[int]) -> list[Chunk]:
    """The chunks that somebody wants to add to a label, in the order of ``keys``.

    Raises:
        ValidationError: too many, or one that is not in the assistant's knowledge base or was retrieved anyway.
    """
    if not keys:
        return []
    wanted = list(dict.fromkeys(keys))
    if len(wanted) > MAX_MISSED:
        raise ValidationError({"missed": [f"At most {MAX_MISSED} passages can be added."]})
    there = (
        Chunk.objects.select_related("document")
        .filter(assistant=turn.assistant_id)
        .defer("embedding", "sentence_embeddings")
    )
    chunks = there.in_bulk(wanted)
    if len(chunks) < len(wanted):
        raise ValidationError(
            {
                "missed": [
                    "A passage that you added is not in the knowledge base any more. Take it away and search anew."
                ]
            }
        )
    ranks = _retrieved(turn)
    for chunk in chunks.values():
        if chunk.text in ranks:
            raise ValidationError(
                {"missed": [f"A passage that you added was retrieved: mark passage {ranks[chunk.text]}."]}
            )
    return [chunks[key] for key in wanted]


def store_missed(annotation: Annotation, chunks: Sequence[Chunk]) -> None:
    by_digest = {chunk.digest: chunk for chunk in chunks}
    MissedPassage.objects.bulk_create(
        MissedPassage(
            annotation=annotation, chunk=chunk, digest=digest, source=chunk.document.path, title=chunk.title[:500]
        )
        for digest, chunk in by_digest.items()
    )


def added_passages(turn: Turn, keys: Sequence[int]) -> list[Found]:
    """What the form shows of the chunks in a draft; those that are gone are left out. No query without keys."""
    if not keys:
        return []
    chunks = _chunks(turn, keys[:MAX_MISSED])
    return [
        Found(key, chunks[key].title, chunks[key].document.path, chunks[key].text[:ADDED_CHARS])
        for key in dict.fromkeys(keys)
        if key in chunks
    ]


def _chunks(turn: Turn, keys: Sequence[int]) -> dict[int, Chunk]:
    there = Chunk.objects.filter(assistant=turn.assistant_id).select_related("document")
    return there.defer("embedding", "sentence_embeddings").in_bulk(list(keys))


def _by_words(assistant: Assistant, query: str, ranks: dict[str, int]) -> tuple[Found, ...]:
    words = SearchQuery(query, search_type="websearch", config="english")
    hits = (
        Chunk.objects.filter(assistant=assistant, words=words)
        .select_related("document")
        .defer("embedding", "sentence_embeddings")
        .annotate(weight=SearchRank(F("words"), words))
        .order_by("-weight", "pk")[:FOUND]
    )
    return tuple(Found(c.pk, c.title, c.document.path, c.text, ranks.get(c.text)) for c in hits)


def _retrieved(turn: Turn) -> dict[str, int]:
    """{text: rank} of what the turn has."""
    rows = Passage.objects.filter(retrievals__turn=turn).values_list("text", "retrievals__rank")
    return dict(rows)

"""Which words of a question tell passages apart: how often each stands in the assistant's chunks.

PostgreSQL's own ranks know nothing of that, so that "the" of a domain weighs as much as its rarest term. Here a word
weighs its inverse document frequency (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009), times
`ts_rank`, which saturates with the occurrences as BM25 does, over the length of the chunk; on Doc2Dial and XQuAD the
order is as good as BM25's.

Counts may lag behind the chunks by a tenth: a frequency that is a little wrong changes no order worth mentioning, and a
word that was not counted yet passes for a rare one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Func

from assistants.models import Assistant

MAX_HEADINGS = 6
LAG = 0.1
"""Share of the chunks by which the counts may lag."""
TERMS = 12
"""Words of a question that are weighed: the weightiest ten find as much as all."""
NEW_TERMS = 3
"""Words that were not counted yet, beside those."""
BUDGET = 300
"""Chunks whose words are weighed: a search must not take longer the more common its words are."""


class ChunkWords(Func):
    """The tsvector of a chunk: the stems of its headings and text, and ``@<assistant>``, which no text can hold.

    With that word in the index, a search touches the chunks of one assistant only: filtering afterwards would read the
    rows of all the others for each common word.
    """

    function = "ratchet_words"

    def __init__(self, **extra: Any) -> None:
        super().__init__(F("assistant"), F("headings"), F("text"), **extra)

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        assistant, headings, text = (compiler.compile(expression)[0] for expression in self.get_source_expressions())
        parts = [f"coalesce({headings}[{level}], '')" for level in range(1, MAX_HEADINGS + 1)]
        words = " || ' ' || ".join([*parts, text])
        return f"(array_to_tsvector(ARRAY['@' || {assistant}::text]) || to_tsvector('english', {words}))", []

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return "knowledge.lexicon.ChunkWords", [], {}


@dataclass(frozen=True)
class Term:
    """``word`` as a tsquery; ``weight``: what it counts; ``chunks``: in how many it stands."""

    word: str
    weight: float
    chunks: int


@dataclass(frozen=True)
class Terms:
    """``search``: a tsquery that finds few enough chunks, empty where every word is too common to find by."""

    weighed: tuple[Term, ...] = ()
    search: str = ""


ASKED = """
    SELECT asked.lexeme, asked.weight, coalesce(counted.chunks, 0) AS chunks FROM (
        SELECT word.lexeme, sum(part.weight) AS weight
        FROM unnest(%(texts)s::text[], %(weights)s::float8[]) AS part(text, weight),
            unnest(to_tsvector('english', part.text)) AS word
        GROUP BY word.lexeme
    ) AS asked LEFT JOIN knowledge_lexemecount AS counted
        ON counted.assistant_id = %(assistant)s::bigint AND counted.lexeme = hashtextextended(asked.lexeme, 0)
"""
"""The words of texts, each with what it counts, and in how many of the assistant's chunks it stands."""


def terms_of(assistant: Assistant, asked: Iterable[tuple[str, float, int]], *, chunks: int) -> Terms:
    """The words of a question that are searched and weighed.

    Args:
        asked: rows of ASKED.
        chunks: how many the assistant has, as far as counted.
    """
    found = [
        Term(_quoted(lexeme), weight * math.log(1 + (chunks - min(n, chunks) + 0.5) / (n + 0.5)), n)
        for lexeme, weight, n in asked
    ]
    found.sort(key=lambda term: (-term.weight, term.word))
    known = [term for term in found if term.chunks][:TERMS]
    new = [term for term in found if not term.chunks][:NEW_TERMS]
    return Terms((*known, *new), _search(assistant, known, new, chunks))


def _search(assistant: Assistant, known: Sequence[Term], new: Sequence[Term], chunks: int) -> str:
    """Any of the weightiest words as long as they stand in few chunks; where each is too common, several together."""
    chosen: list[str] = []
    left = BUDGET
    for term in known:
        if term.chunks <= left:
            chosen.append(term.word)
            left -= term.chunks
    words = [*chosen, *(term.word for term in new)]
    if not chosen and len(known) > 1:
        expected = float(chunks)
        together: list[str] = []
        for term in known[:TERMS]:
            together.append(term.word)
            expected *= term.chunks / max(chunks, 1)
            if expected <= BUDGET:
                words.append(f"({' & '.join(together)})")
                break
    return f"'@{assistant.pk}' & ({' | '.join(words)})" if words else ""


def _quoted(lexeme: str) -> str:
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


def ensure_counted(*, assistant: Assistant, chunks: int, counted: int | None) -> bool:
    """Counts anew where the counts lag too far behind. True when it did.

    Args:
        chunks: how many the assistant has.
        counted: how many it had when they were counted; None: never.
    """
    if counted is not None and abs(chunks - counted) <= LAG * chunks:
        return False
    with transaction.atomic(), connection.cursor() as cursor:
        # Two questions at once: one counts, the other goes by what is there.
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('knowledge.lexicon'), %s)", [assistant.pk])
        if not cursor.fetchone()[0]:
            return False
        _count(cursor, assistant)
    return True


def count_words(assistant: Assistant) -> int:
    """Counts the words of an assistant's chunks anew; returns the number of distinct words.

    A second or two for 100,000 chunks. Searches go on by the old counts until it is done.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('knowledge.lexicon'), %s)", [assistant.pk])
        return _count(cursor, assistant)


def due_for_counting() -> list[int]:
    """Ids of the assistants whose counts lag. Large collections wait for this; small ones are counted when asked."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT chunk.assistant_id FROM (
                SELECT assistant_id, count(*) AS chunks FROM knowledge_chunk GROUP BY assistant_id
            ) AS chunk LEFT JOIN knowledge_lexicon AS lexicon USING (assistant_id)
            WHERE lexicon.chunks IS NULL OR abs(chunk.chunks - lexicon.chunks) > %s * chunk.chunks
            ORDER BY chunk.assistant_id
            """,
            [LAG],
        )
        return [row[0] for row in cursor.fetchall()]


def _count(cursor: Any, assistant: Assistant) -> int:
    key = int(assistant.pk)
    cursor.execute("DELETE FROM knowledge_lexemecount WHERE assistant_id = %s", [key])
    # ts_stat takes a query as text and no parameters; what is put in is a number.
    cursor.execute(
        """
        INSERT INTO knowledge_lexemecount (assistant_id, lexeme, chunks)
        SELECT %s, hashtextextended(word, 0), sum(ndoc) FROM ts_stat(%s) GROUP BY 2
        """,
        [key, f"SELECT words FROM knowledge_chunk WHERE assistant_id = {key}"],  # noqa: S608
    )
    words = int(cursor.rowcount)
    cursor.execute(
        """
        INSERT INTO knowledge_lexicon (assistant_id, chunks, average_length, counted_at)
        SELECT %s, count(*), coalesce(avg(length(words)), 1), now() FROM knowledge_chunk WHERE assistant_id = %s
        ON CONFLICT (assistant_id) DO UPDATE SET chunks = excluded.chunks, average_length = excluded.average_length,
            counted_at = excluded.counted_at
        """,
        [key, key],
    )
    return words

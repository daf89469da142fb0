"""The candidates of a search, from vectors and from words, each with both scores: one SQL statement.

Small collections are searched exactly: with a tenant filter the HNSW index returns too few rows (measured recall .09 at
0.9 % of the table), and a thousand distances cost less than a millisecond. Large ones use the index with iterative
scanning, which goes on until enough rows of *this* assistant are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings

from assistants.models import Assistant
from knowledge.configuration import RetrievalSettings
from knowledge.lexicon import Terms, ensure_counted, terms_of
from knowledge.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_BELOW = 5_000
"""Chunks of one assistant up to which the search is exact."""
EF_SEARCH = 100
SELECTING = 6
"""Words that choose among the chunks that were found; those that are chosen are weighed by all."""
SATURATION = 1.6449
"""ts_rank divides by the sum that it grows towards."""


@dataclass(frozen=True)
class Candidates:
    """Chunk id to score: ``similarity`` of vectors, ``weight`` of words."""

    similarity: dict[int, float]
    weight: dict[int, float]


@dataclass(frozen=True)
class Size:
    """``chunks``: of the assistant, or one more than EXACT_BELOW; ``counted``: None when words were never counted."""

    chunks: int
    counted: int | None
    average_length: float

    @property
    def is_small(self) -> bool:
        return self.chunks <= EXACT_BELOW


def size_of(cursor: Any, assistant: Assistant) -> Size:
    """Also sets, for this transaction, how the vector index scans: it costs no query of its own here."""
    cursor.execute(
        """
        SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', %s, true),
            (SELECT count(*) FROM (SELECT 1 FROM knowledge_chunk WHERE assistant_id = %s LIMIT %s) AS few),
            lexicon.chunks, coalesce(lexicon.average_length, 50)
        FROM (SELECT 1) AS one LEFT JOIN knowledge_lexicon AS lexicon ON lexicon.assistant_id = %s
        """,
        [str(EF_SEARCH), assistant.pk, EXACT_BELOW + 1, assistant.pk],
    )
    *_, chunks, counted, length = cursor.fetchone()
    return Size(chunks, counted, float(length))


def find(
    cursor: Any, *, assistant: Assistant, query: Query, settings: RetrievalSettings, exact: bool | None = None
) -> Candidates:
    """``exact`` forces a path (the self-test compares both); by default size decides. Call it in a transaction."""
    size = size_of(cursor, assistant)
    terms = Terms()
    if settings.words:
        # A large collection takes seconds to count: not at the cost of somebody's question (see knowledge.jobs).
        never = size.counted is None and django_settings.PROCESS != "web"
        if (size.is_small or never) and ensure_counted(
            cursor, assistant=assistant, chunks=size.chunks, counted=size.counted
        ):
            size = size_of(cursor, assistant)
        chunks = max(size.chunks, size.counted or 0)
        terms = terms_of(cursor, assistant=assistant, parts=query.parts, chunks=chunks)
        if size.counted is None and not size.is_small:
            # Nobody knows yet which of them stand everywhere; searching by those would read most of the table.
            terms = Terms(terms.weighed)
    if not settings.vectors and not terms.weighed:
        return Candidates({}, {})
    sql, params = statement(
        assistant=assistant, vector=query.vector, terms=terms, settings=settings, average_length=size.average_length,
        exact=size.is_small if exact is None else exact,
    )  # fmt: skip
    cursor.execute(sql, params)
    rows = cursor.fetchall()
    return Candidates(
        {pk: float(similarity) for pk, similarity, _ in rows} if settings.vectors else {},
        {pk: float(weight) for pk, _, weight in rows if weight > 0},
    )


def statement(
    *, assistant: Assistant, vector: NDArray[Any], terms: Terms, settings: RetrievalSettings, average_length: float,
    exact: bool,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """The SQL and its parameters: rows of (id, similarity, weight)."""
    params: dict[str, Any] = {
        "assistant": assistant.pk,
        "vector": "[" + ",".join(f"{x:.6g}" for x in vector) + "]",
        "listed": settings.candidates,
        "average": max(average_length, 1.0),
        "search": terms.search,
        "folders": list(settings.folders),
    }
    for number, term in enumerate(terms.weighed):
        params |= {f"word{number}": term.word, f"weight{number}": term.weight * SATURATION}
    where = f"assistant_id = %(assistant)s{_filter(settings)}"
    lists, pool = [], ""
    if settings.vectors:
        rows = f"knowledge_chunk WHERE {where}"
        if exact:
            # MATERIALIZED keeps the planner from using the HNSW index for the exact path.
            pool = f"pool AS MATERIALIZED (SELECT id, embedding FROM {rows}),"  # noqa: S608
            rows = "pool"
        # Equal distances by id, so that the same question always finds the same; the index cannot order by two things.
        tie = ", id" if exact else ""
        lists.append(
            f"(SELECT id FROM {rows} ORDER BY embedding <=> %(vector)s::halfvec{tie} LIMIT %(listed)s)"  # noqa: S608
        )
    if terms.search:
        rows = f"knowledge_chunk WHERE {where} AND words @@ %(search)s::tsquery"
        lists.append(
            f"(SELECT id FROM {rows} ORDER BY {_weight(terms, SELECTING)} DESC, id LIMIT %(listed)s)"  # noqa: S608
        )
    listed = " UNION ".join(lists) or "SELECT NULL::bigint AS id WHERE false"
    sql = f"""
        WITH {pool} listed AS MATERIALIZED ({listed})
        SELECT id, 1 - (embedding <=> %(vector)s::halfvec), {_weight(terms)}
        FROM knowledge_chunk JOIN listed USING (id)
    """  # noqa: S608 - made of the literals above
    return sql, params


def _weight(terms: Terms, most: int | None = None) -> str:
    """``most``: only so many of the weightiest words; a microsecond for each word and row adds up."""
    sums = [
        f"%(weight{n})s::float8 * ts_rank('{{1,1,1,1}}', words, %(word{n})s::tsquery)"
        for n in range(len(terms.weighed[:most]))
    ]
    return f"({' + '.join(sums)}) / (0.7 + 0.3 * length(words) / %(average)s::float8)" if sums else "0::float8"


def _filter(settings: RetrievalSettings) -> str:
    conditions = [] if settings.superseded else ["NOT superseded"]
    if settings.folders:
        conditions.append("EXISTS (SELECT FROM unnest(%(folders)s::text[]) AS folder WHERE starts_with(path, folder))")
    if not conditions:
        return ""
    return (
        " AND document_id IN (SELECT document.id FROM knowledge_document AS document "  # noqa: S608
        f"WHERE document.assistant_id = %(assistant)s AND {' AND '.join(conditions)})"
    )

"""The candidates of a search, from vectors and from words, each with both scores: one SQL statement.

Up to EXACT_UP_TO chunks of an assistant the search is exact: the index `chunk_vectors` holds an assistant's vectors
side by side, so that five thousand are compared in two milliseconds, wherever their rows stand. Larger assistants have
an HNSW index of their own (`knowledge.vector_indexes`). One index over all assistants would return too few rows of a
small one, or walk past all the others' to find them: measured, .942 of what is nearest in 24 ms.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings

from assistants.models import Assistant
from assistants.prepared import Wire, run_prepared
from knowledge.configuration import RetrievalSettings
from knowledge.lexicon import ASKED, Terms, ensure_counted, terms_of
from knowledge.query import Query
from knowledge.vector_indexes import EF_SEARCH, EXACT_UP_TO, PREFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """``chunks``: of the assistant, or one more than EXACT_UP_TO; with an index as many as were counted.
    ``counted``: None when words were never counted. ``ef_search``: of the assistant's index; None: it has none."""

    chunks: int
    counted: int | None
    average_length: float
    ef_search: int | None

    @property
    def is_small(self) -> bool:
        return self.ef_search is None and self.chunks <= EXACT_UP_TO


_PREPARING = f"""
SELECT size.*, word.lexeme, word.weight, word.chunks FROM (
    SELECT found.ef_search, lexicon.chunks, coalesce(lexicon.average_length, 50)::float8 AS length,
        CASE WHEN found.ef_search IS NULL OR lexicon.chunks IS NULL THEN (
            SELECT count(*) FROM (
                SELECT 1 FROM knowledge_chunk WHERE assistant_id = %(assistant)s::bigint LIMIT {EXACT_UP_TO + 1}
            ) AS few
        ) END AS here
    FROM (
        SELECT CASE WHEN (
            SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{PREFIX}' || %(assistant)s::bigint)
        ) THEN coalesce((
            SELECT ef_search FROM knowledge_vectorindex
            WHERE assistant_id = %(assistant)s::bigint AND ef_search IS NOT NULL ORDER BY id DESC LIMIT 1
        ), {EF_SEARCH}) END AS ef_search
    ) AS found LEFT JOIN knowledge_lexicon AS lexicon ON lexicon.assistant_id = %(assistant)s::bigint
) AS size LEFT JOIN ({ASKED}) AS word ON true
"""  # noqa: S608 - literals of ours


@dataclass(frozen=True)
class Opening:
    """What is known of a search before its question's vector. ``listed``: the chunks that words find; None: not asked
    yet, and then one statement asks for them and for the nearest vectors."""

    size: Size
    terms: Terms
    listed: list[int] | None = None


def opening(assistant: Assistant, parts: tuple[tuple[str, float], ...], settings: RetrievalSettings) -> Opening:
    """Asks all that needs no vector: for whoever waits for the vector all the same, since it is one statement more."""
    opened = _opened(assistant, parts, settings)
    if not opened.terms.search:
        return replace(opened, listed=[])
    params: dict[str, Any] = {"search": opened.terms.search}
    listed = _by_words(opened.terms, settings, assistant, opened.size.average_length, params)
    sql = f"WITH asked AS MATERIALIZED (SELECT %(search)s::tsquery AS search) SELECT id FROM {listed} AS listed"  # noqa: S608
    return replace(opened, listed=[row[0] for row in run_prepared(sql, params)])


def _opened(assistant: Assistant, parts: tuple[tuple[str, float], ...], settings: RetrievalSettings) -> Opening:
    """How large the assistant is, and what is searched of a question's words."""
    parts = parts if settings.words else ()
    size, asked = size_and_words(assistant, parts)
    if not parts:
        return Opening(size, Terms())
    # A large collection takes seconds to count: not at the cost of somebody's question (see knowledge.jobs).
    never = size.counted is None and django_settings.PROCESS != "web"
    if (size.is_small or never) and ensure_counted(assistant=assistant, chunks=size.chunks, counted=size.counted):
        size, asked = size_and_words(assistant, parts)
    terms = terms_of(assistant, asked, chunks=max(size.chunks, size.counted or 0))
    if size.counted is None and not size.is_small:
        # Nobody knows yet which of them stand everywhere; searching by those would read most of the table.
        terms = Terms(terms.weighed)
    return Opening(size, terms)


def size_and_words(assistant: Assistant, parts: tuple[tuple[str, float], ...]) -> tuple[Size, list[Any]]:
    """How large the assistant is, how it is searched, and (lexeme, weight, chunks) of the words that are asked for."""
    found = run_prepared(_PREPARING, {
        "assistant": assistant.pk, "texts": [text for text, _ in parts], "weights": [weight for _, weight in parts],
    })  # fmt: skip
    ef_search, counted, length, here = found[0][:4]
    size = Size(counted if here is None else here, counted, float(length), ef_search)
    return size, [row[4:] for row in found if row[4] is not None]


def find(
    *, assistant: Assistant, query: Query, settings: RetrievalSettings, exact: bool | None = None,
    opened: Opening | None = None,
) -> Candidates:  # fmt: skip
    """``exact`` forces a path (the self-test compares both); by default there is an index or there is none.
    ``opened``: of `opening`, where that was asked while the question was embedded."""
    opened = opened or _opened(assistant, query.parts, settings)
    size, terms = opened.size, opened.terms
    if not settings.vectors and not terms.weighed:
        return Candidates({}, {})
    by_index = size.ef_search is not None if exact is None else not exact
    found: list[Any] = []
    for ef_search in ((size.ef_search or EF_SEARCH), None) if by_index else (None,):
        sql, params = statement(
            assistant=assistant, vector=query.vector, terms=terms, settings=settings,
            average_length=size.average_length, ef_search=ef_search, listed=opened.listed,
        )  # fmt: skip
        found = run_prepared(sql, params)
        # The index gives up after some thousand rows; where folders leave few of them, those are compared one by one.
        if not (settings.folders or not settings.superseded) or sum(row[3] for row in found) >= settings.candidates:
            break
    return Candidates(
        {row[0]: row[1] for row in found} if settings.vectors else {}, {row[0]: row[2] for row in found if row[2] > 0}
    )


def statement(
    *, assistant: Assistant, vector: NDArray[Any], terms: Terms, settings: RetrievalSettings, average_length: float,
    ef_search: int | None, listed: Sequence[int] | None = None,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """The SQL and its parameters: rows of (id, similarity, weight, whether vectors found it).
    ``ef_search`` None: exact. ``listed``: as that of `Opening`."""
    params: dict[str, Any] = {"vector": on_the_wire(vector)}
    # The query of words stands beside the vector, where the planner does not see it: else it prefers a plan for these
    # very words, and makes one for each question; that takes as long as weighing them.
    search = ", %(search)s::tsquery AS search" if terms.search and listed is None else ""
    if ef_search is None:
        asked = f"SELECT %(vector)s::halfvec AS vector{search}"
    else:
        # Set for this statement alone, and before the scan begins, since the scan waits for the vector: no transaction
        # is needed, and a pooler may hand the next statement to another session.
        params["ef"] = str(ef_search)
        asked = (
            f"SELECT CASE WHEN how.set <> '' THEN %(vector)s::halfvec END AS vector{search} FROM (SELECT "  # noqa: S608
            "set_config('hnsw.iterative_scan', 'relaxed_order', true) "
            "|| set_config('hnsw.ef_search', %(ef)s::text, true) AS set) AS how"
        )
    # Its number stands in the text: only so is its index considered, and the plan is one for as many rows as it has,
    # not for as many as assistants have on average.
    mine = int(assistant.pk)
    where = _filter(settings, mine)
    if settings.folders:
        params["folders"] = list(settings.folders)
    nearest = _nearest(settings, mine, where, by_index=ef_search is not None) if settings.vectors else ""
    if nearest and not terms.weighed:  # nothing of these rows is needed but what was compared
        sql = f"""
            WITH asked AS MATERIALIZED ({asked})
            SELECT id, 1 - distance, 0::float8, true AS near FROM {nearest} AS nearest
        """  # noqa: S608
        return sql, params
    lists = [f"SELECT id, true AS near FROM {nearest} AS nearest"] if nearest else []  # noqa: S608
    if listed is not None:
        params["listed"] = list(listed)
        lists.append("SELECT id, false AS near FROM unnest(%(listed)s::bigint[]) AS id")
    elif terms.search:
        params["search"] = terms.search
        by_words = _by_words(terms, settings, assistant, average_length, params)
        lists.append(f"SELECT id, false AS near FROM {by_words} AS worded")  # noqa: S608
    weight = _weight(terms, average_length, params)
    either = " UNION ALL ".join(lists) or "SELECT NULL::bigint AS id, false AS near WHERE false"
    sql = f"""
        WITH asked AS MATERIALIZED ({asked}), listed AS MATERIALIZED (
            SELECT id, bool_or(near) AS near FROM ({either}) AS either GROUP BY id
        )
        SELECT id, 1 - (embedding <=> (SELECT vector FROM asked)), {weight}, near
        FROM knowledge_chunk JOIN listed USING (id)
    """  # noqa: S608 - made of the literals above
    return sql, params


def _nearest(settings: RetrievalSettings, mine: int, where: str, *, by_index: bool) -> str:
    # Adding nothing keeps an exact search from any HNSW index; equal distances go by id, which no index can do too.
    distance, order = "embedding <=> (SELECT vector FROM asked)", "distance"
    if not by_index:
        distance, order = f"({distance}) + 0", "distance, id"
    return (
        f"(SELECT id, {distance} AS distance FROM knowledge_chunk WHERE assistant_id = {mine}{where} "  # noqa: S608
        f"ORDER BY {order} LIMIT {int(settings.candidates)})"
    )


def on_the_wire(vector: NDArray[Any]) -> Wire:
    """A halfvec as PostgreSQL receives it: writing and reading 384 numbers as text took a seventh of a millisecond."""
    return Wire(struct.pack(">HH", len(vector), 0) + vector.astype(">f2").tobytes())


def _by_words(
    terms: Terms, settings: RetrievalSettings, assistant: Assistant, average_length: float, params: dict[str, Any]
) -> str:
    """The ids of the chunks that words find, of a query that stands in ``asked.search``."""
    # The words name the assistant already; + 0 keeps the planner from reading all of its rows instead.
    mine = int(assistant.pk)
    if settings.folders:
        params["folders"] = list(settings.folders)
    return (
        "(SELECT id FROM knowledge_chunk WHERE words @@ (SELECT search FROM asked) "  # noqa: S608
        f"AND assistant_id + 0 = {mine}{_filter(settings, mine)} "
        f"ORDER BY {_weight(terms, average_length, params, SELECTING)} DESC, id LIMIT {int(settings.candidates)})"
    )


def _weight(terms: Terms, average_length: float, params: dict[str, Any], most: int | None = None) -> str:
    """What a chunk's words weigh. ``params`` get what it names; ``most``: only so many of the weightiest words, since a
    microsecond for each word and row adds up."""
    weighed = terms.weighed[:most]
    if not weighed:
        return "0::float8"
    params["average"] = float(max(average_length, 1.0))
    for number, term in enumerate(weighed):
        params |= {f"word{number}": term.word, f"weight{number}": term.weight * SATURATION}
    sums = [f"%(weight{n})s::float8 * ts_rank('{{1,1,1,1}}', words, %(word{n})s::tsquery)" for n in range(len(weighed))]
    return f"({' + '.join(sums)}) / (0.7 + 0.3 * length(words) / %(average)s::float8)"


def _filter(settings: RetrievalSettings, assistant: int) -> str:
    conditions = [] if settings.superseded else ["NOT superseded"]
    if settings.folders:
        conditions.append("EXISTS (SELECT FROM unnest(%(folders)s::text[]) AS folder WHERE starts_with(path, folder))")
    if not conditions:
        return ""
    return (
        " AND document_id IN (SELECT document.id FROM knowledge_document AS document "  # noqa: S608
        f"WHERE document.assistant_id = {assistant} AND {' AND '.join(conditions)})"
    )

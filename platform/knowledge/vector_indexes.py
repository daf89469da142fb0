"""One HNSW index for each large assistant: their names, what stands in the database, and how one is made.

The index holds the rows of one assistant alone (``WHERE assistant_id = N``), so a search never walks past those of
others, and loading a small assistant's documents pays for none. The catalogue of the database is the truth about which
there are and which are whole; `knowledge.indexing` makes, rebuilds and drops them in the background.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import OperationalError, connection

EXACT_UP_TO = 5_000
"""Chunks of one assistant up to which its search is exact."""
DROP_BELOW = 3_000
"""Chunks below which an index goes again; less than EXACT_UP_TO, so that none is made and dropped by turns."""
PREFIX = "chunk_hnsw_"
EF_SEARCH = 200
"""Where nobody has measured yet how widely an index must be searched."""
M, EF_CONSTRUCTION = 16, 128
BYTES = 2_000
"""Of memory for each chunk while an index is made: the graph must fit, or making it takes many times as long."""


@dataclass(frozen=True)
class Found:
    """``whole``: it may serve; else it is being made, or its making was interrupted."""

    name: str
    assistant: int
    whole: bool


def name_of(assistant: int) -> str:
    return f"{PREFIX}{int(assistant)}"


def present() -> list[Found]:
    """The indexes that there are, leftovers of interrupted work (``…_ccnew``, ``…_ccold``) among them."""
    with connection.cursor() as cursor:
        cursor.execute(
            r"""
            SELECT relname, (regexp_match(relname, '^chunk_hnsw_(\d+)'))[1]::bigint,
                indisvalid AND relname ~ '^chunk_hnsw_\d+$'
            FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE indrelid = 'knowledge_chunk'::regclass AND relname ~ '^chunk_hnsw_\d+'
            ORDER BY relname
            """
        )
        return [Found(*row) for row in cursor.fetchall()]


def make(assistant: int, *, anew: bool, memory: int, workers: int) -> None:
    """Makes the index of one assistant, or makes it anew while the old one serves. Whole when it returns.

    Documents can be loaded and searched meanwhile. In a transaction (a test) they cannot.

    Args:
        memory: bytes that the server may use for it.
        workers: processes beside the one that makes it.
    """
    settings = {
        "maintenance_work_mem": f"{max(memory // 1024, 1024)}kB",
        "max_parallel_maintenance_workers": str(workers),
        "statement_timeout": "0",
        # Else the server would go on for a process that was killed.
        "client_connection_check_interval": "2s",
    }
    name, beside = name_of(assistant), "" if connection.in_atomic_block else "CONCURRENTLY"
    statement = f"REINDEX INDEX {beside} {name}" if anew else (
        f"CREATE INDEX {beside} {name} ON knowledge_chunk USING hnsw (embedding halfvec_cosine_ops) "
        f"WITH (m = {M}, ef_construction = {EF_CONSTRUCTION}) WHERE assistant_id = {int(assistant)}"
    )  # fmt: skip
    with connection.cursor() as cursor:
        if not beside:  # a transaction that has inserted rows still has to check what they refer to
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        try:
            for setting, value in settings.items():
                cursor.execute("SELECT set_config(%s, %s, false)", [setting, value])
            cursor.execute(statement)
        finally:
            if beside:  # a transaction that failed takes its settings with it
                for setting in settings:
                    cursor.execute(f"RESET {setting}")


def drop(name: str) -> None:
    """Whatever there is of this name; waits for the transactions that may be using it."""
    if not name.startswith(PREFIX):
        raise ValueError("not an index of one assistant")
    beside = "" if connection.in_atomic_block else "CONCURRENTLY"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {beside} IF EXISTS {connection.ops.quote_name(name)}")


def is_short_of_memory(error: OperationalError) -> bool:
    """Shared memory for several processes was refused: a container has little of it. One process needs none."""
    return "shared memory" in str(error)

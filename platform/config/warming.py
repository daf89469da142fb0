"""Vector indexes are read once after the embedded PostgreSQL has started, beside everything else.

A search by vectors hops through its index page by page, wherever they stand: with nothing in memory the first one among
a million turns waited ten seconds for the disk. Read from end to end, the same file takes a few. PostgreSQL's own
`pg_prewarm` does not come with the binaries, and its buffers need not be filled: what counts is the system's cache.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import psycopg

from config.postgres import DATABASE, PORT, ROLE, Place

_PIECE = 1 << 20

# Small ones first: of what does not all fit, as many as do.
_INDEXES = """
SELECT pg_relation_filepath(pg_class.oid) FROM pg_class JOIN pg_am ON pg_am.oid = pg_class.relam
WHERE pg_class.relkind = 'i' AND pg_am.amname = 'hnsw' ORDER BY pg_relation_size(pg_class.oid), pg_class.oid
"""


def warm_beside(spot: Place, password: str, *, most: int, is_over: Callable[[], bool]) -> threading.Thread:
    """Starts reading, and returns.

    Args:
        most: bytes; never more than half of the memory that nobody needs.
        is_over: asked between two pieces, whether the server has ended.
    """
    thread = threading.Thread(target=_warm, args=(spot, password, most, is_over), name="warming", daemon=True)
    thread.start()
    return thread


def index_files(raw: psycopg.Connection[tuple[object, ...]], data: Path) -> list[Path]:
    """Files of the vector indexes of one database; PostgreSQL begins another with every GB."""
    found: list[Path] = []
    for (name,) in raw.execute(_INDEXES):
        first = data / str(name)
        found += [first, *sorted(first.parent.glob(f"{first.name}.[0-9]*"), key=lambda path: int(path.suffix[1:]))]
    return found


def read_files(files: Iterable[Path], *, most: int, is_over: Callable[[], bool]) -> int:
    """Reads up to ``most`` bytes and drops them; how many there were. A file that is gone meanwhile is left out."""
    left = most
    for file in files:
        try:
            with file.open("rb", buffering=0) as handle:
                while left > 0 and not is_over() and (piece := handle.read(min(_PIECE, left))):
                    left -= len(piece)
        except OSError:
            continue
    return most - left


def _warm(spot: Place, password: str, most: int, is_over: Callable[[], bool]) -> None:
    try:
        with psycopg.connect(
            host=str(spot.run), port=PORT, user=ROLE, password=password, dbname=DATABASE, connect_timeout=5
        ) as raw:
            files = index_files(raw, spot.data)
        read_files(files, most=min(most, psutil.virtual_memory().available // 2), is_over=is_over)
    except (psycopg.Error, OSError) as error:
        if not is_over():  # searches are only slower at first
            sys.stderr.write(f"The vector indexes were not read ahead ({type(error).__name__}).\n")

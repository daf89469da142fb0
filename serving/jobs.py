"""Background entry points of the serving room."""

from __future__ import annotations

from serving import spool


def drain_spool() -> int:
    return spool.drain()

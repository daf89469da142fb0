"""Processor time of everybody who takes part in a measurement: the web process, PostgreSQL, and the clients here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass
class Spent:
    """Seconds, user and system together."""

    web: float = 0.0
    database: float = 0.0
    client: float = 0.0

    def __iadd__(self, other: Spent) -> Spent:
        self.web += other.web
        self.database += other.database
        self.client += other.client
        return self

    def told(self, turns: int) -> dict[str, float]:
        """Milliseconds a turn."""
        each = 1000 / turns
        return {"web_ms": self.web * each, "database_ms": self.database * each, "client_ms": self.client * each}


@contextmanager
def meter(database: int, web: int | None = None) -> Iterator[Spent]:
    """What the block spends; filled in at its end. The clients are the threads of this process.

    Args:
        database: pid of the postmaster: its backends count, also those that have ended, and so do its writers.
        web: pid of the web process; none took part.
    """
    spent = Spent()
    before = _family(database), _family(web) if web else 0.0, time.process_time()
    yield spent
    spent.client = time.process_time() - before[2]
    spent.web = (_family(web) if web else 0.0) - before[1]
    spent.database = _family(database) - before[0]


def _family(pid: int) -> float:
    parent = psutil.Process(pid)
    total = sum(parent.cpu_times()[:4])  # own, and that of children which have ended
    for child in parent.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:  # ended just now: it is in neither sum, as little as what it did last
            continue
    return total

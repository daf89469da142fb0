"""The leak audit of a large version goes on beside its build, in a process of its own on the second core.

The helper is given the rows as they are made ready, a few parts ahead and no more, and answers with a report. What it
reads and by which rules is what this process would (`training.data.leaks`): who has read a row changes nothing. While
candidates are still collected and weighed it looks at their texts already, as far as it has the time; what becomes of
them does not matter, since a text in which nothing was found is as quiet in any row.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from django.db import connection

from assistants.models import Assistant
from capture.leaks import Audit
from capture.models import LeakReport
from training.data import audit_helper
from training.data.candidates import Candidate
from training.data.leaks import RowReader, conversations_with_values

logger = logging.getLogger(__name__)

WITH_HELPER = 10_000
"""Rows from which a second process pays: it needs some seconds to start, and 250 MB."""
PART = 500
AHEAD = 4
"""Parts that wait for the helper at most: each is some 3 MB."""


class HelperLost(RuntimeError):
    """The helper ended before it was done, and so did the one after it: killed, or out of memory."""

    def __init__(self) -> None:
        super().__init__("The process that read the rows for the leak audit ended early, twice. Build it again.")


@dataclass(frozen=True, slots=True)
class Stored:
    """A candidate as it lies in a pool. What has one place is one and the same."""

    place: int
    turn: Any
    data: bytes


class Helper:
    """`look` at what may come, `read` each row once, then ask for the `report`.

    One that is lost takes with it what it has found. Another one is started, once; the rows that were given to the
    first are read again when the report is asked for.
    """

    def __init__(self, start: Callable[[], ProcessPoolExecutor]) -> None:
        self._start = start
        self._pool = start()
        self._read = 0
        self._lost = -1
        """Rows that a lost helper was given; −1 while none is lost."""
        self._waiting: list[Stored] = []
        self._asked: deque[Future[None]] = deque()

    @property
    def has_room(self) -> bool:
        """To look at something now. Raises as `read`."""
        try:
            while self._asked and self._asked[0].done():
                self._asked.popleft().result()
        except BrokenProcessPool:
            self._start_another()
        return len(self._asked) < AHEAD

    def look(self, rows: Sequence[Stored]) -> None:
        """Never waits: what there is no room for is read later. Raises HelperLost."""
        if not self.has_room:
            return
        try:
            self._asked.append(self._pool.submit(audit_helper.look, rows))
        except BrokenProcessPool:
            self._start_another()

    def read(self, row: Stored) -> None:
        """Raises:
        privacy.findings.ScrubError: a row cannot be read, so nobody can say that it is clean.
        HelperLost: see there.
        """
        self._waiting.append(row)
        if len(self._waiting) == PART:
            self._send()

    def report(self, row: Callable[[int], Stored]) -> LeakReport:
        """Not yet saved, without the content's hash; rows are named by the order in which they came.

        ``row``: brings back the row that came at this place. Raises as `read`.
        """
        self._send()
        while True:
            try:
                again, self._lost = max(self._lost, 0), min(self._lost, 0)
                for first in range(0, again, PART):
                    part = [row(place) for place in range(first, min(first + PART, again))]
                    self._ask(part, first)
                while self._asked:
                    self._asked.popleft().result()
                found: LeakReport = self._pool.submit(audit_helper.report).result()
                return found
            except BrokenProcessPool:
                self._start_another()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _send(self) -> None:
        part, self._waiting = self._waiting, []
        first, self._read = self._read, self._read + len(part)
        try:
            self._ask(part, first)
        except BrokenProcessPool:
            self._start_another()

    def _ask(self, part: Sequence[Stored], first: int) -> None:
        while len(self._asked) >= AHEAD:
            self._asked.popleft().result()
        self._asked.append(self._pool.submit(audit_helper.read, part, first))

    def _start_another(self) -> None:
        """Raises HelperLost where this was the second."""
        if self._lost >= 0:
            raise HelperLost from None
        logger.warning("The process that reads for the leak audit ended early; another one is started.")
        self.close()
        self._asked.clear()
        self._lost = self._read
        self._pool = self._start()


@contextmanager
def helper_for(assistant: Assistant, subject: str, rows: int) -> Iterator[Helper | None]:
    """None where it would not pay: few rows, or one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if rows < WITH_HELPER or cores < 2:
        yield None
        return
    initargs = (assistant.pk, subject, connection.settings_dict["NAME"])

    def start() -> ProcessPoolExecutor:
        context = get_context("spawn")  # this process has threads: a fork of it may hang
        return ProcessPoolExecutor(1, mp_context=context, initializer=audit_helper.begin, initargs=initargs)

    helper = Helper(start)
    try:
        yield helper
    finally:
        helper.close()


def named_by_position(report: LeakReport, positions: Mapping[int, int]) -> LeakReport:
    """With rows called by their place in the version, and listed in its order. ``positions``: {as it came: place}."""

    def named(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        moved = [{**finding, "row": str(positions[int(finding["row"])])} for finding in findings]
        return sorted(moved, key=lambda finding: int(finding["row"]))

    report.findings, report.doubtful = named(report.findings), named(report.doubtful)
    return report


class Reading:
    """What the helper holds."""

    def __init__(self, assistant: Assistant, subject: str) -> None:
        self.audit = Audit(assistant, subject)
        self._reader = RowReader(self.audit, assistant)
        self._quiet: set[int] = set()
        """Places of candidates that were looked at, and in which nothing was found."""

    def read(self, part: Sequence[Stored], first: int) -> None:
        known = conversations_with_values({row.turn for row in part if row.turn})
        names, rows = [], []
        for name, row in enumerate(part, start=first):
            if row.place in self._quiet and row.turn not in known:
                self.audit.passed()  # most rows of a build are candidates as they were collected
            else:
                names.append(str(name))
                rows.append(row)
        self._reader.read(_candidates(rows), names)

    def look(self, part: Sequence[Stored]) -> None:
        quiet = self._reader.look(_candidates(part))
        self._quiet.update(row.place for row, one in zip(part, quiet, strict=True) if one)


def _candidates(part: Sequence[Stored]) -> list[Candidate]:
    return [pickle.loads(row.data) for row in part]  # noqa: S301 - of our own build

"""The leak audit of a large version goes on beside its build, in a process of its own on the second core.

The helper is given the rows as they are made ready, a few parts ahead and no more, and answers with a report. What it
reads and by which rules is what this process would (`training.data.leaks`): who has read a row changes nothing. While
candidates are still collected and weighed it looks at their texts already, as far as it has the time; what becomes of
them does not matter, since a text in which nothing was found is as quiet in any row.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from django.db import connection

from assistants.models import Assistant
from capture.leaks import Audit
from capture.models import LeakReport
from training.data import audit_helper
from training.data.candidates import Candidate
from training.data.leaks import RowReader

WITH_HELPER = 10_000
"""Rows from which a second process pays: it needs some seconds to start, and 250 MB."""
PART = 500
AHEAD = 4
"""Parts that wait for the helper at most: each is some 3 MB."""


class HelperLost(RuntimeError):
    """The helper ended before it was done: killed, or out of memory."""

    def __init__(self) -> None:
        super().__init__("The process that read the rows for the leak audit ended early. Build the version again.")


class Helper:
    """`look` at what may come, `read` each row once, then ask for the `report`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool
        self._read = 0
        self._waiting: list[bytes] = []
        self._asked: deque[Future[None]] = deque()

    def look(self, rows: Sequence[Candidate]) -> None:
        """Never waits: what there is no room for is read later. Raises HelperLost."""
        try:
            while self._asked and self._asked[0].done():
                self._asked.popleft().result()
            if len(self._asked) < AHEAD:
                part = [pickle.dumps(row, pickle.HIGHEST_PROTOCOL) for row in rows]
                self._asked.append(self._pool.submit(audit_helper.look, part))
        except BrokenProcessPool:
            raise HelperLost from None

    def read(self, row: Candidate) -> None:
        """Raises:
        privacy.findings.ScrubError: a row cannot be read, so nobody can say that it is clean.
        HelperLost: see there.
        """
        self._waiting.append(pickle.dumps(row, pickle.HIGHEST_PROTOCOL))
        if len(self._waiting) == PART:
            self._send()

    def report(self) -> LeakReport:
        """Not yet saved, without the content's hash; rows are named by the order in which they came.

        Raises as `read`.
        """
        self._send()
        try:
            while self._asked:
                self._asked.popleft().result()
            found: LeakReport = self._pool.submit(audit_helper.report).result()
        except BrokenProcessPool:
            raise HelperLost from None
        return found

    def _send(self) -> None:
        part, self._waiting = self._waiting, []
        try:
            while len(self._asked) >= AHEAD:
                self._asked.popleft().result()
            self._asked.append(self._pool.submit(audit_helper.read, part, self._read))
        except BrokenProcessPool:
            raise HelperLost from None
        self._read += len(part)


@contextmanager
def helper_for(assistant: Assistant, subject: str, rows: int) -> Iterator[Helper | None]:
    """None where it would not pay: few rows, or one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if rows < WITH_HELPER or cores < 2:
        yield None
        return
    database = connection.settings_dict["NAME"]
    pool = ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),  # this process has threads: a fork of it may hang
        initializer=audit_helper.begin,
        initargs=(assistant.pk, subject, database),
    )
    try:
        yield Helper(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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

    def read(self, part: Sequence[bytes], first: int) -> None:
        rows = _candidates(part)
        self._reader.read(rows, [str(first + i) for i in range(len(rows))])

    def look(self, part: Sequence[bytes]) -> None:
        self._reader.look(_candidates(part))


def _candidates(part: Sequence[bytes]) -> list[Candidate]:
    return [pickle.loads(row) for row in part]  # noqa: S301 - of our own build

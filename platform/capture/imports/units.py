"""The words that readers, formats and the run share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Payload = dict[str, Any]
"""A turn or a piece of feedback as the log API takes it (`capture.payloads`)."""


class ImportProblem(Exception):
    """The import cannot go on. The message is one line with a hint, and holds no text of the log."""


class Refused(Exception):
    """One record cannot become a turn. ``reason`` is one of few short sentences and holds nothing of the record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Row:
    """One record of a file.

    ``line`` counts from 1: the line of a JSONL file, the last line of a CSV record, the element of a JSON array, the
    row of a Parquet file. ``problem`` says why it could not be read; then ``data`` is None. ``size`` in bytes, roughly.
    """

    file: int
    line: int
    size: int
    data: Any = None
    problem: str = ""


@dataclass
class Converted:
    """What came of a record or of a trace. ``notes``: what was left out of it, in few short sentences."""

    turns: list[Payload] = field(default_factory=list)
    feedback: list[Payload] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Unit:
    """A step of the run: done as a whole or again from its start. ``problems``: (file, line, reason) of what fell out.

    ``rows``: how many records of the files are in it.
    """

    file: int
    line: int
    size: int
    rows: int
    converted: Converted
    problems: Sequence[tuple[int, int, str]] = ()

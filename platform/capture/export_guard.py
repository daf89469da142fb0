"""The one place where an export can be stopped: whoever guards exports registers here.

Rooms that know more than this one (the leak audit) register a guard when their app is ready. Every format, the API, the
pages and the command call `check` with the records of a batch before any of their bytes leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assistants.models import Assistant

Record = Mapping[str, Any]
"""A turn as `capture.reading.turn_rows` gives it."""
Guard = Callable[[Assistant, Sequence[Record]], None]
"""Raises `ExportBlocked` where the records of this assistant must not leave. Called per batch: keep it quick."""

_guards: list[Guard] = []


class ExportBlocked(Exception):
    """The export stops here. The message names field and kind of finding, never the value; ``turn`` is our id of it."""

    def __init__(self, message: str, *, turn: str = "") -> None:
        super().__init__(message)
        self.turn = turn


def register(guard: Guard) -> None:
    """Registering the same guard again changes nothing."""
    if guard not in _guards:
        _guards.append(guard)


def unregister(guard: Guard) -> None:
    if guard in _guards:
        _guards.remove(guard)


def check(assistant: Assistant, records: Sequence[Record]) -> None:
    """Raises:
    ExportBlocked: one of the guards objects.
    """
    for guard in _guards:
        guard(assistant, records)

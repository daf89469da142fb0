"""Why the name model was refused, for as long as asking again would find the same.

Loading takes half a second. Where the model is broken every text would load it again, only to be held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

RETRY_SECONDS = 30.0
"""What is wrong may lie elsewhere than in the files: in a package, in memory that was short."""

State = tuple[tuple[int, int] | None, ...]


class Refusals:
    """The last refusal and the files that it was about; not safe for threads by itself."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._last: tuple[str, State, float] | None = None

    def known(self) -> str | None:
        """What was wrong; None when there was nothing, the files have changed since, or it is some time ago."""
        if self._last is None:
            return None
        message, state, until = self._last
        if time.monotonic() < until and state == self._state():
            return message
        self._last = None
        return None

    def remember(self, message: str) -> None:
        """Whoever asks next is told the same."""
        self._last = message, self._state(), time.monotonic() + RETRY_SECONDS

    def _state(self) -> State:
        return tuple(_state_of(path) for path in self._files())


def _state_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size

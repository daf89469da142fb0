"""One line on where an import stands: on a terminal it is rewritten, elsewhere it is said again now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Out(Protocol):
    """A stream of text; Django's wrapper of one as well."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class Display:
    """Args:
    out: where lines go.
    live: whether that is a terminal.
    quiet: say nothing.
    """

    def __init__(
        self, out: Out, *, live: bool, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._out, self._live, self._quiet, self._clock = out, live, quiet, clock
        self._start = self._last = clock()
        self._width = 0
        self._first: tuple[float, float] | None = None

    def begin(self) -> None:
        """A new phase, whose rate and end are counted from here."""
        self._start, self._first = self._clock(), None

    def show(self, what: str, count: int, share: float) -> None:
        """``count`` things done in this phase; ``share`` of it all, 0 to 1."""
        now = self._clock()
        if self._first is None:
            self._first = (now, share)
        if self._quiet or now - self._last < (0.5 if self._live else 10):
            return
        self._last = now
        rate = count / max(now - self._start, 1e-6)
        self._write(f"{count:,} {what} · {rate:,.0f}/s · {share:.0%}{self._left(now, share)}")

    def say(self, sentence: str) -> None:
        """A sentence that stays."""
        if not self._quiet:
            self.end()
            self._out.write(f"{sentence}\n")
            self._out.flush()

    def end(self) -> None:
        """Clears the line that is rewritten."""
        if self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._width = 0

    def _left(self, now: float, share: float) -> str:
        then, before = self._first or (now, share)
        if share - before < 0.005 or now - then < 2:
            return ""
        seconds = (now - then) * (1 - share) / (share - before)
        return f" · {duration(seconds)} left"

    def _write(self, line: str) -> None:
        if not self._live:
            self._out.write(f"{line}\n")
        else:
            self._out.write("\r" + line.ljust(self._width))
            self._width = max(self._width, len(line))
        self._out.flush()


def duration(seconds: float) -> str:
    """As people say it: 8 s, 3 min, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

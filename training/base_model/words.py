"""Word lists of the generator, kept as data in `words.txt`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FILE = Path(__file__).parent / "words.txt"


@cache
def _lists() -> dict[str, tuple[str, ...]]:
    lines = [line for line in _FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    named = (line.split(": ", 1) for line in lines)
    return {name: tuple(items.split("|")) for name, items in named}


def word_list(name: str) -> tuple[str, ...]:
    """Raises KeyError for a list that `words.txt` does not hold."""
    return _lists()[name]

"""Words near a hit that make it likelier: "card" before a number.

Words are compared whole and in lower case. Presidio, whose rule this follows, takes a context word inside another word
("lic" in "public") for context, and walks the whole text once for each hit.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property

from privacy.features import Features
from privacy.wordlists import words

BEFORE, AFTER = 5, 2
"""So many words before the one that a hit begins in, and behind the one that it ends in, are near."""
RAISED_BY, AT_LEAST = 0.35, 0.4
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_STOP_WORDS = frozenset(
    words("""
    a an and are as at be been but by can could did do does for from had has have he her his i if
    in into is it its me my no not of on or our she so than that the their them then there they
    this to us was we were what when which who will with would you your please
    """)
)


def raised(score: float) -> float:
    """The score of a hit that has a context word near."""
    return min(max(score + RAISED_BY, AT_LEAST), 1.0)


class Nearby:
    """The words of one text by their place; they are looked for when a hit first asks."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _found(self) -> tuple[list[int], list[str]]:
        matches = list(_WORD.finditer(self._text))
        return [match.start() for match in matches], [match.group().lower() for match in matches]

    def around(self, start: int, end: int) -> list[str]:
        """The words near [start, end), its own first one included; grammar words and marks are passed over."""
        starts, lower = self._found
        if not lower:
            return []
        first = max(0, bisect_right(starts, start) - 1)
        last = max(first, bisect_right(starts, end - 1) - 1)
        return [
            *_telling(lower, range(first, -1, -1), BEFORE + 1),
            *_telling(lower, range(last + 1, len(lower)), AFTER),
        ]


def _telling(lower: Sequence[str], order: range, count: int) -> list[str]:
    found: list[str] = []
    for place in order:
        if len(found) == count:
            break
        word = lower[place]
        if word not in _STOP_WORDS and word[0].isalnum():
            found.append(word)
    return found


class ContextWords:
    """The context words of one recogniser."""

    def __init__(self, given: Iterable[str]) -> None:
        self._given = [(word, word.lower()) for word in given]
        self._lower = tuple(lower for _, lower in self._given)
        self._search = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, self._lower))})(?!\w)")

    def any_in(self, features: Features) -> bool:
        """Whether one of them stands in the text as a word."""
        return bool(self._lower) and features.any_of(self._lower) and self._search.search(features.lower) is not None

    def near(self, nearby: Nearby, start: int, end: int) -> str | None:
        """The first of them that stands near [start, end)."""
        around = frozenset(nearby.around(start, end))
        return next((word for word, lower in self._given if lower in around), None)

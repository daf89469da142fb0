"""Runs of capitalised words: which of them is a person's name, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import regex

from privacy.cues import TITLES
from privacy.scanning import Hit

_PARTICLES = "van|von|de|der|den|del|della|di|da|do|dos|das|du|la|le|el|al|bin|ibn|bint|ter|ten|zu|y|af"
RUN_GAP = regex.compile(rf"(?:\.[ \u00a0]?|[ \t\u00a0]{{1,3}}(?:(?:{_PARTICLES})[ \u00a0]){{0,2}})")
MAX_NAME_WORDS = 5


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text with what the lists say about it."""

    start: int
    end: int
    folded: str
    capital: bool
    first: bool
    last: bool
    common: bool

    @property
    def initial(self) -> bool:
        """A single letter, as in "P."."""
        return self.end - self.start == 1

    @property
    def known(self) -> bool:
        """Some list of names has it."""
        return self.first or self.last

    @property
    def strong_first(self) -> bool:
        """A first name that is not an everyday word."""
        return self.first and not self.common and len(self.folded) > 2

    @property
    def strong_last(self) -> bool:
        """A last name that is not an everyday word."""
        return self.last and not self.common and len(self.folded) > 2

    @property
    def unknown(self) -> bool:
        """Neither a name nor an everyday word."""
        return not self.known and not self.common and not self.initial


def joined(text: str, left: Word, right: Word) -> bool:
    if right.start - left.end > 12:
        return False
    gap = RUN_GAP.fullmatch(text, left.end, right.start)
    if gap is None:
        return False
    return text[left.end] != "." or left.initial or left.folded in TITLES


def people_in_run(run: list[Word]) -> Iterator[Hit]:
    position = 0
    while position < len(run):
        word = run[position]
        if word.folded in TITLES and position + 1 < len(run):
            length = _extent(run, position + 1)
            words = run[position + 1 : position + 1 + length]
            if words and not (length == 1 and words[0].common and not words[0].known):
                yield Hit(words[0].start, words[-1].end, 0.9, "title", word.folded)
            position += 1 + length
            continue
        length, score = _score_at(run, position)
        if score:
            last = run[position + length - 1]
            yield Hit(word.start, last.end, score, "name lists")
        position += length


def _extent(run: list[Word], start: int) -> int:
    """Number of words from `start` that can form one name."""
    end = start
    while end < len(run) and end - start < MAX_NAME_WORDS:
        word = run[end]
        if word.folded in TITLES or (word.common and not word.known and not word.initial):
            break
        end += 1
    while end > start and run[end - 1].initial:
        end -= 1
    return end - start


def _score_at(run: list[Word], position: int) -> tuple[int, float]:
    """(words taken, score or 0) for a name that begins at `position`."""
    word = run[position]
    length = _extent(run, position)
    if length == 0:
        return 1, 0.0
    rest = [other for other in run[position + 1 : position + length] if not other.initial]
    if not rest:
        return max(1, length), 0.6 if word.strong_first else 0.4 if word.strong_last else 0.0
    tail_strong = any(other.strong_last or other.strong_first for other in rest)
    if word.strong_first:
        return length, 0.9 if tail_strong else 0.75
    if word.initial or word.first:
        return (length, 0.7) if tail_strong else (1, 0.0)
    if word.strong_last and any(other.strong_first for other in rest):
        return length, 0.75
    if word.unknown and rest[0].strong_last:
        return length, 0.6
    return 1, 0.4 if word.strong_last else 0.0

"""Cheap facts about a text that let whole recognisers be skipped, most of them from one scan for digits.

A gate may say yes too often, never no where its recogniser would have found something: every fact
here is a necessary condition that errs on the side of searching.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import regex

_DIGITS = re.compile(r"\d+")
_SPOKEN = re.compile(r"[^\W_]+")
_LONG_CHARS = 16
_LONG = re.compile(rf"\S{{{_LONG_CHARS},}}")
_CHAIN_GAP = 3
_BETWEEN = frozenset(["", *" \t\r\n!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~£€"])
_WORD_AFTER = regex.compile(r"\w*")
_WORD_BEFORE = regex.compile(r"(?r)\w*")
_PAIR = re.compile(r"[:\-][0-9A-Fa-f]{2}[:\-]")
_FOUR = re.compile(r"\.[0-9A-Fa-f]{4}\.")
_FEWEST_SEPARATORS = 5


@dataclass(frozen=True)
class Features:
    """Facts about one text; each is computed when first asked for, and once."""

    text: str
    shared: dict[str, Any] = field(default_factory=dict, compare=False)
    """What one recogniser worked out and another needs too."""

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """[start, end) of every run of decimal digits (of any script)."""
        return [match.span() for match in _DIGITS.finditer(self.text)]

    @property
    def digit(self) -> bool:
        """Contains a decimal digit of any script."""
        return bool(self.runs)

    @cached_property
    def longest_run(self) -> int:
        """Digits of the longest run."""
        return max((end - start for start, end in self.runs), default=0)

    @cached_property
    def longest_chain(self) -> int:
        """Digits of the longest series of runs with at most three characters between neighbours."""
        longest = digits = last = 0
        for start, end in self.runs:
            digits = digits + end - start if start - last <= _CHAIN_GAP and digits else end - start
            longest = max(longest, digits)
            last = end
        return longest

    @property
    def seven_digits(self) -> bool:
        """Contains seven digits that may belong together."""
        return self.longest_chain >= 7

    @cached_property
    def before_digits(self) -> frozenset[str]:
        """The characters that stand right before a run of digits."""
        return frozenset(self.text[start - 1] for start, _ in self.runs if start)

    @cached_property
    def dotted(self) -> bool:
        """Contains a digit, a dot and a digit."""
        return "." in self.before_digits and any(
            self.text[start - 1] == "." and self.text[start - 2].isdigit() for start, _ in self.runs if start > 1
        )

    @cached_property
    def letters_and_digits(self) -> bool:
        """A letter stands next to a digit."""
        return any(map(str.isalpha, self.before_digits)) or any(
            self.text[end : end + 1].isalpha() for _, end in self.runs
        )

    @cached_property
    def country_and_check(self) -> bool:
        """Two letters and two digits in a row, as an IBAN begins."""
        return any(end - start >= 2 and self.text[max(0, start - 2) : start].isalpha() for start, end in self.runs)

    @cached_property
    def digit_words(self) -> list[tuple[int, int]]:
        """[start, end) of the words (letters, digits, underscores) that have a digit."""
        text = self.text
        words: list[tuple[int, int]] = []
        for start, end in self.runs:
            if text[start - 1 : start] in _BETWEEN and text[end : end + 1] in _BETWEEN:
                words.append((start, end))  # most numbers stand alone, which needs no search
            elif not words or words[-1][1] < end:
                before = next(_WORD_BEFORE.finditer(text, words[-1][1] if words else 0, start))
                words.append((before.start(), next(_WORD_AFTER.finditer(text, end)).end()))
        return words

    @cached_property
    def long_words(self) -> list[tuple[int, int]]:
        """[start, end) of the stretches of at least 16 characters without white space."""
        # Few texts have one, and splitting is quicker than the search.
        if max(map(len, self.text.split()), default=0) < _LONG_CHARS:
            return []
        return [match.span() for match in _LONG.finditer(self.text)]

    @cached_property
    def hexadecimal_pair(self) -> bool:
        """Two hexadecimal digits between colons or hyphens of which there are five, or four between dots."""
        text = self.text
        if _FOUR.search(text) is not None:
            return True
        many = text.count(":") >= _FEWEST_SEPARATORS or text.count("-") >= _FEWEST_SEPARATORS
        return many and _PAIR.search(text) is not None

    @property
    def at_sign(self) -> bool:
        """Contains an at-sign."""
        return "@" in self.text

    @property
    def colon(self) -> bool:
        """Contains a colon."""
        return ":" in self.text

    @cached_property
    def lower(self) -> str:
        """The text in lower case, for searches of plain words."""
        return self.text.lower()

    @cached_property
    def words(self) -> list[str]:
        """What stands between white space and opening brackets, in lower case."""
        return self.lower.replace("(", " ").split()

    @cached_property
    def spoken(self) -> frozenset[str]:
        """Every run of letters and digits, in lower case: "i'm" is two of them."""
        return frozenset(_SPOKEN.findall(self.lower))

    def any_of(self, words: Iterable[str]) -> bool:
        """Whether one of the lower-case `words` occurs anywhere."""
        lower = self.lower
        for word in words:  # noqa: SIM110 - a generator costs as much again as the searches
            if word in lower:
                return True
        return False

    def chunks(self, places: Iterable[int]) -> Iterator[tuple[int, int]]:
        """[start, end) of the stretches without white space around these places, in order, each once."""
        text, size = self.text, len(self.text)
        last = 0
        for place in places:
            if place < last:
                continue
            start = end = place
            while start > last and not text[start - 1].isspace():
                start -= 1
            while end < size and not text[end].isspace():
                end += 1
            last = end
            yield start, end


Gate = Callable[[Features], bool]

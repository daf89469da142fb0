"""When two spellings are the same entity: folding of values, words and n-grams for literal search."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from privacy.cues import TITLES
from privacy.gazetteer import FUNCTION_WORDS, fold, gazetteer

_WORD = re.compile(r"[^\W_]+")
_NAME_TYPES = frozenset({"PERSON", "LOCATION"})
_DIGIT_TYPES = frozenset({"CREDIT_CARD", "US_SSN", "BANK_ACCOUNT"})
_COMPACT_TYPES = frozenset({"IBAN", "UK_NINO", "NATIONAL_ID", "PASSPORT", "DRIVER_LICENSE", "MAC_ADDRESS"})
# National and international forms of one telephone number share their last digits.
_PHONE_TAIL = 9
MAX_WORDS = 12
_FILLER = "\ue000"
_MIN_LONE_LENGTH = 3
_MIN_LONE_DIGITS = 6


class TextWord(NamedTuple):
    """A run of letters and digits: [start, end), folded, and whether it starts with a capital."""

    start: int
    end: int
    folded: str
    capital: bool


def words_of(text: str) -> list[TextWord]:
    """The words of a text, a possessive 's left out."""
    found: list[TextWord] = []
    # Of plain text the words need no folding one by one; what stands for a mask is part of no word.
    plain = text.replace(_FILLER, " ")
    lower = plain.lower() if plain.isascii() else None
    for match in _WORD.finditer(text):
        start, end = match.span()
        if end - start == 1 and text[start] in "sS" and found and found[-1].end == start - 1 and text[end - 2] in "'’":
            continue
        folded = fold(match.group()) if lower is None else lower[start:end]
        found.append(TextWord(start, end, folded, text[start].isupper()))
    return found


def identity(entity_type: str, value: str) -> str:
    """The form in which equal values of a type are equal strings."""
    if entity_type in _NAME_TYPES:
        return " ".join(name_words(value)) or fold(value).strip()
    if entity_type == "PHONE":
        digits = _digits(value)
        if len(digits) < _MIN_LONE_DIGITS:  # in words: without digits two numbers would be the same
            return " ".join(word.folded for word in words_of(value))
        return digits[-_PHONE_TAIL:] if len(digits) > _PHONE_TAIL else digits
    if entity_type in _DIGIT_TYPES:
        return _digits(value) or fold(value)
    if entity_type in _COMPACT_TYPES:
        return "".join(word.folded for word in words_of(value)) or fold(value)
    if entity_type == "ADDRESS":
        return " ".join(word.folded for word in words_of(value)) or fold(value)
    if entity_type == "SECRET":
        return value
    return " ".join(fold(value).split())


def name_words(value: str) -> list[str]:
    """Folded words of a name without titles."""
    words = [word.folded for word in words_of(value)]
    return [word for word in words if word not in TITLES] or words


def literal_key(value: str) -> str:
    """The words of a value as they are searched for in other texts; "" if it is too unspecific."""
    words = [word.folded for word in words_of(value)]
    if not 1 <= len(words) <= MAX_WORDS:
        return ""
    joined = "".join(words)
    if joined.isdigit():
        return " ".join(words) if len(joined) >= _MIN_LONE_DIGITS else ""
    if len(words) == 1 and (len(joined) < _MIN_LONE_LENGTH or joined in FUNCTION_WORDS):
        return ""
    if all(word in FUNCTION_WORDS or word.isdigit() for word in words):
        return ""
    return " ".join(words)


def needs_capital(key: str) -> bool:
    """Whether a literal match must be capitalised: one word that is everyday language too."""
    return " " not in key and gazetteer().is_common(key)


def ngrams(
    words: list[TextWord], lengths: Collection[int], firsts: Collection[str] | None = None
) -> Iterator[tuple[int, int, str]]:
    """(first word, number of words, key) of every stretch of those lengths, the longest first.

    With `firsts` only stretches that begin with one of these folded words.
    """
    folded = [word.folded for word in words]
    starts = [place for place, word in enumerate(folded) if firsts is None or word in firsts]
    for length in sorted(lengths, reverse=True):
        for first in starts:
            if first + length <= len(folded):
                yield first, length, " ".join(folded[first : first + length])


def _digits(value: str) -> str:
    return "".join(char for char in value if char.isdigit())

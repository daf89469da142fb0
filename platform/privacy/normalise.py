"""One readable form of a text for the recognisers, with the way back to the original offsets.

Undoes what hides personal data from patterns: compatibility forms (full-width digits, ligatures),
zero-width and bidirectional marks inside words, and percent- or entity-encoded at-signs in e-mail
addresses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufe00-\ufe0f\ufeff\U000e0001-\U000e007f]"
)
_ENCODED_AT = re.compile(r"%40|&#0*64;|&#x0*40;|&commat;", re.IGNORECASE)
_ENCODED = re.compile(r"%([2-7][0-9A-F])|&#0*(6[0-9]|4[0-9]);|&#x0*([2-7][0-9A-F]);|&(commat);", re.IGNORECASE)
# Longest address around an encoded at-sign, and longest run of combining marks taken as one
# character: both keep hostile input from costing more than linear time.
_ADDRESS_REACH = 320
_CLUSTER_LIMIT = 32


@dataclass(frozen=True, slots=True)
class NormalisedText:
    """`text[i]` came from `original[starts[i]:ends[i]]`; without maps both texts are the same."""

    text: str
    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original that [start, end), not empty, was made from."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]

    def whole_characters(self, start: int, end: int) -> tuple[int, int]:
        """[start, end) widened to all that its first and last original characters became."""
        if self.starts is None:
            return start, end
        while start > 0 and self.starts[start - 1] == self.starts[start]:
            start -= 1
        while end < len(self.starts) and self.starts[end] == self.starts[end - 1]:
            end += 1
        return start, end


def normalise(original: str) -> NormalisedText:
    """NFKC, invisible marks removed, encoded e-mail addresses decoded; any string is accepted."""
    if not _needs_work(original):
        return NormalisedText(original)
    chars: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end, piece in _pieces(original):
        for char in piece:
            chars.append(char)
            starts.append(start)
            ends.append(end)
    return NormalisedText("".join(chars), tuple(starts), tuple(ends))


def _needs_work(text: str) -> bool:
    if _ENCODED_AT.search(text):
        return True
    if text.isascii():
        return False
    return bool(_INVISIBLE.search(text)) or not unicodedata.is_normalized("NFKC", text)


def _pieces(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, normalised form) of each character cluster, in order."""
    encoded = _encoded_characters(text)
    position, size = 0, len(text)
    while position < size:
        if position in encoded:
            end, char = encoded[position]
            yield position, end, char
            position = end
            continue
        end = _cluster_end(text, position)
        cluster = _INVISIBLE.sub("", text[position:end])
        if cluster:
            yield position, end, unicodedata.normalize("NFKC", cluster)
        position = end


def _cluster_end(text: str, start: int) -> int:
    """End of a character with its combining marks (and of a conjoining Hangul syllable)."""
    limit = min(len(text), start + _CLUSTER_LIMIT)
    end = start + 1
    while end < limit and (unicodedata.combining(text[end]) or _joins_hangul(text[end])):
        end += 1
    return end


def _joins_hangul(char: str) -> bool:
    return "\u1160" <= char <= "\u11ff"


def _encoded_characters(text: str) -> dict[int, tuple[int, str]]:
    """start -> (end, character) of every escape in a word that hides an at-sign."""
    found: dict[int, tuple[int, str]] = {}
    searched = 0
    for at_sign in _ENCODED_AT.finditer(text):
        low = max(searched, at_sign.start() - _ADDRESS_REACH)
        high = min(len(text), at_sign.end() + _ADDRESS_REACH)
        left = at_sign.start()
        while left > low and not text[left - 1].isspace():
            left -= 1
        right = at_sign.end()
        while right < high and not text[right].isspace():
            right += 1
        for escape in _ENCODED.finditer(text, left, right):
            found[escape.start()] = (escape.end(), _decode(escape))
        searched = max(searched, right)
    return found


def _decode(escape: re.Match[str]) -> str:
    percent, decimal, hexadecimal, named = escape.groups()
    if named:
        return "@"
    if decimal:
        return chr(int(decimal))
    char = chr(int(percent or hexadecimal, 16))
    return char if char.isprintable() else escape.group()[0]

"""One readable form of a text for the recognisers, with the way back to the original offsets.

Undoes what hides personal data from patterns: compatibility forms (full-width digits, ligatures),
zero-width and bidirectional marks inside words, percent- and entity-encoding, and Greek or Cyrillic
letters that pass for Latin ones.
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
_HINT = re.compile(r"%[2-7C-Ec-e][0-9A-Fa-f]|&#|&(?:commat|nbsp|plus|period);", re.IGNORECASE)
_ENCODED = re.compile(
    r"(?:%[0-9A-F]{2}){1,2000}|&#0*([0-9]{2,7});|&#x0*([0-9A-F]{2,6});|&(commat|nbsp|plus|period);", re.IGNORECASE
)
_NAMED = {"commat": "@", "nbsp": " ", "plus": "+", "period": "."}
_LAST_CODE_POINT = 0x10FFFF
_LATIN = str.maketrans(
    "аеорсухіјѕԁһԛԝӏАВЕЅІЈКМНОРСТУХ" + "οναιρκυΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhqwlABESIJKMHOPCTYX" + "ovaipkuABEZHIKMNOPTYX",
)
_LOOKALIKE = re.compile(f"[{''.join(map(chr, _LATIN))}]")
_MIXED_WORD = re.compile(
    r"[^\W\d_]*(?:[A-Za-z][^\W\d_]*?[\u0370-\u03ff\u0400-\u052f]|[\u0370-\u03ff\u0400-\u052f][^\W\d_]*?[A-Za-z])[^\W\d_]*"
)
# Longest run of combining marks taken as one character: hostile input costs no more than linear time.
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
    """NFKC, invisible marks removed, escapes decoded, lookalikes in Latin; any string is accepted."""
    if not _needs_work(original):
        return NormalisedText(_unmixed(original))
    chars: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for start, end, piece in _pieces(original):
        for char in piece:
            chars.append(char)
            starts.append(start)
            ends.append(end)
    return NormalisedText(_unmixed("".join(chars)), tuple(starts), tuple(ends))


def _needs_work(text: str) -> bool:
    if _HINT.search(text):
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
    """start -> (end, character) of every escape that stands for a printable character."""
    found: dict[int, tuple[int, str]] = {}
    for match in _ENCODED.finditer(text):
        decimal, hexadecimal, named = match.groups()
        if decimal or hexadecimal:
            code = int(decimal) if decimal else int(hexadecimal, 16)
            char = chr(code) if code <= _LAST_CODE_POINT else ""
            if char and char.isprintable():
                found[match.start()] = (match.end(), char)
        elif named:
            found[match.start()] = (match.end(), _NAMED[named.lower()])
        else:
            found |= _percent_decoded(match.group(), match.start())
    return found


def _percent_decoded(run: str, offset: int) -> dict[int, tuple[int, str]]:
    """The characters of a run of %XX in UTF-8; bytes that are none stay as they are written."""
    found: dict[int, tuple[int, str]] = {}
    data = bytes.fromhex(run.replace("%", ""))
    position = 0
    while position < len(data):
        length = _utf8_length(data[position])
        try:
            char = data[position : position + length].decode()
        except UnicodeDecodeError:
            position += 1
            continue
        if len(char) == 1 and char.isprintable():
            found[offset + 3 * position] = (offset + 3 * (position + length), char)
        position += length
    return found


def _utf8_length(first: int) -> int:
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def _unmixed(text: str) -> str:
    """Greek and Cyrillic letters that look Latin as the Latin ones, in words that have Latin letters too.

    Character for character, so that offsets stay. A word of one script keeps it.
    """
    if text.isascii() or not _LOOKALIKE.search(text):
        return text
    return _MIXED_WORD.sub(lambda match: match.group().translate(_LATIN), text)

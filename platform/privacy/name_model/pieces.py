"""A text as the name model reads it: word pieces with their places and what their letters look like.

The encoder knows no case ("Will" and "will" are one word to it), so how a word is written is given to it apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FEATURES = 17
"""Columns of `Pieces.features`."""
_SHAPES = 6
_NO_LETTER, _LOWER, _CAPITALISED, _CAPITALS, _MIXED, _SINGLE = range(_SHAPES)
_LINE_LOWER, _LINE_UPPER, _LINE_MIXED = 6, 7, 8
_STARTS, _CONTINUES, _CODE, _ACCENTS, _HYPHENATED, _TITLED, _AFTER_SHORT, _LONG = range(9, 17)
# The scrubber shows what is masked already as a private-use character, which the tokenizer drops; this mark it keeps.
_FILLER = "\ue000"
_MASKED = "†"
_OPENERS = '.!?:…"“”„«»*•|>\n([{-–—#'
_CODE_BEFORE = frozenset("._`\\$#@/<")
_CODE_AFTER = frozenset("_(=`\\[<@")
_SHORT_LINE = 6
_LONG_FROM = 9


@dataclass(frozen=True)
class Pieces:
    """The pieces of one text: ids, [start, end) in the text, word numbers, features of shape (n, FEATURES)."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    words: NDArray[np.int32]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The encoder's tokenizer without its cut and padding. Raises OSError when the file is not there."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(path)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_pieces(tokenizer: Tokenizer, text: str) -> Pieces:
    """The pieces of a text of any length. Lone surrogates are read as unknown characters."""
    shown = text.replace(_FILLER, _MASKED)
    if not shown.isascii():
        shown = shown.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if _surrogates(shown) else shown
    encoding = tokenizer.encode(shown, add_special_tokens=False)
    ids = np.array(encoding.ids, dtype=np.int32)
    offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    words = np.array(encoding.word_ids, dtype=np.int32)
    return Pieces(ids, offsets[:, 0], offsets[:, 1], words, _features(shown, offsets, words))


def _surrogates(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is not None


def _features(text: str, offsets: NDArray[np.int32], words: NDArray[np.int32]) -> NDArray[np.float32]:
    features = np.zeros((len(words), FEATURES), dtype=np.float32)
    if not len(words):
        return features
    firsts, lasts = first_and_last(words)
    lines = _line_cases(text)
    cells: list[int] = []
    line = 0
    places = zip(offsets[firsts, 0].tolist(), offsets[lasts, 1].tolist(), strict=True)
    for number, (start, end) in enumerate(places):
        while lines[line][0] <= start and line + 1 < len(lines):
            line += 1
        row = FEATURES * number
        cells += [row + column for column in _word_features(text, start, end, lines[line][1])]
    rows = np.zeros(FEATURES * len(firsts), dtype=np.float32)
    rows[cells] = 1.0
    features[:] = rows.reshape(-1, FEATURES)[np.repeat(np.arange(len(firsts)), lasts - firsts + 1)]
    continued = np.ones(len(words), dtype=bool)
    continued[firsts] = False
    features[continued, _CONTINUES] = 1.0
    return features


def first_and_last(words: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first and the last piece of each word; there is at least one."""
    ends = np.flatnonzero(words[1:] != words[:-1])
    return np.concatenate([[0], ends + 1]), np.concatenate([ends, [len(words) - 1]])


def _line_cases(text: str) -> list[tuple[int, int]]:
    """(end, case) of every line: all lower, all upper, or mixed (as short lines are taken to be)."""
    found = []
    position = 0
    for line in text.split("\n"):
        position += len(line) + 1
        case = _LINE_MIXED
        if len(line) >= _SHORT_LINE:
            case = _LINE_LOWER if line.islower() else _LINE_UPPER if line.isupper() else _LINE_MIXED
        found.append((position, case))
    return found


def _word_features(text: str, start: int, end: int, line_case: int) -> list[int]:
    """The columns that say yes of a word."""
    word = text[start:end]
    found = [_shape(word), line_case]
    # Most words have other words beside them, and then there is nothing else to say but how long they are.
    if (
        start > 1
        and text[start - 1] == " "
        and text[end : end + 1] == " "
        and text[start - 2].isalnum()
        and word.isascii()
    ):
        return [*found, _LONG] if end - start > _LONG_FROM else found
    before = start - 1
    while before >= 0 and text[before] in " \t'’":
        before -= 1
    if before < 0 or text[before] in _OPENERS:
        found.append(_STARTS)
    left = text[start - 1] if start else " "
    right = text[end] if end < len(text) else " "
    beyond = text[end + 1] if end + 1 < len(text) else " "
    if left in _CODE_BEFORE or right in _CODE_AFTER or (right in ".:" and (beyond.islower() or beyond == ":")):
        found.append(_CODE)
    if not word.isascii():
        found.append(_ACCENTS)
    if "-" in (left, right):
        found.append(_HYPHENATED)
    if right == "." and end - start <= 4:
        found.append(_TITLED)
    if left == " " and start >= 2 and text[start - 2] == ".":
        found.append(_AFTER_SHORT)
    if end - start > _LONG_FROM:
        found.append(_LONG)
    return found


def _shape(word: str) -> int:
    # Most words are of ASCII letters in lower case, and this is asked of each.
    if word.isascii():
        if word.islower():
            return _LOWER
        if word.isdigit():
            return _NO_LETTER
    if not any(char.isalpha() for char in word):
        return _NO_LETTER
    if len(word) == 1:
        return _SINGLE if word.isupper() else _LOWER
    if word.islower():
        return _LOWER
    if word.isupper():
        return _CAPITALS
    return _CAPITALISED if word[0].isupper() and word[1:].islower() else _MIXED

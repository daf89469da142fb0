"""From the probabilities of pieces to stretches of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import or_
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from privacy.address_places import STREET_ENDS
from privacy.foreign_words import is_foreign
from privacy.name_model.labels import TYPES
from privacy.name_model.pieces import Pieces, first_and_last
from privacy.name_model.weights import Matrix

_WITHIN = 0.25
"""A word belongs to a stretch from this probability of being part of any name; the stretch's score decides later."""
_SPLIT = 0.6
_SPLIT_AT_BLANK = 0.9
"""Where only a blank is between, a word starts a new stretch from this probability on: "Bad Ems" is one place."""
_POSTCODE_DIGITS = 6
_POSTCODE_FROM = 4
_ELIDED = frozenset("jmlsc")
"""As in "j'habite"."""
_APOSTROPHES = frozenset("'’")
_JOINTS = _APOSTROPHES | {"-"}
_SURE_NUMBER = 0.88
"""A postcode of digits alone looks like any number, so it takes more."""
_NOTED = 0.01
"""Nobody asks about words that are less likely part of a name, so that of most sentences nothing is kept."""
_LONG_POSTCODE = re.compile(r"\d{4,5}-\d{3,4}")
# "sha256", and not "hauptstr5".
_CODED = re.compile(r"([a-z]{3,8})\d{1,4}")
_JOINED_ENDS = tuple(end for end in STREET_ENDS if len(end) > 2 and end.isalpha())
_STREET = re.compile(r"[^\W\d_]{3}")


class ModelHit(NamedTuple):
    """A stretch [start, end) of a text; `raw` is the mean probability of its words, `score` the calibrated one."""

    start: int
    end: int
    entity_type: str
    score: float
    raw: float


@dataclass(frozen=True)
class Reading:
    """What the model says about one text: hits, and for each word that could be part of a name how likely it is."""

    hits: tuple[ModelHit, ...]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    named: NDArray[np.float16]

    def likelihood(self, start: int, end: int) -> float:
        """The highest probability of a word in [start, end) to be part of a name; 0 where it is below .01."""
        inside = self.named[(self.starts < end) & (self.ends > start)]
        return float(inside.max()) if len(inside) else 0.0


_NOWHERE = np.zeros(0, dtype=np.int32)
NOTHING = Reading((), _NOWHERE, _NOWHERE, _NOWHERE.astype(np.float16))
"""The reading of a text without names; there is one for all."""


def joined(parts: Sequence[tuple[int, Reading]]) -> Reading:
    """The reading of a text from those of its segments, each with the place in the text where it starts."""
    parts = [(place, reading) for place, reading in parts if reading is not NOTHING]
    if not parts:
        return NOTHING
    hits = (
        hit._replace(start=hit.start + place, end=hit.end + place) for place, reading in parts for hit in reading.hits
    )
    return Reading(
        tuple(hits),
        np.concatenate([reading.starts + np.int32(place) for place, reading in parts]),
        np.concatenate([reading.ends + np.int32(place) for place, reading in parts]),
        np.concatenate([reading.named for _, reading in parts]),
    )


def read(text: str, pieces: Pieces, probabilities: Matrix, calibration: Mapping[str, tuple[Matrix, Matrix]]) -> Reading:
    """Hits of a text from the label probabilities of its pieces, shape (n, labels)."""
    if not len(pieces):
        return NOTHING
    firsts, lasts = first_and_last(pieces.words)
    counts = (lasts - firsts + 1).astype(np.float32)[:, None]
    words: Matrix = (np.add.reduceat(probabilities, firsts, axis=0) / counts).astype(np.float32)
    starts, ends = pieces.starts[firsts], pieces.ends[lasts]
    named: Matrix = 1 - words[:, 0]
    if named.max() < _NOTED:
        return NOTHING
    types: Matrix = words[:, 1::2] + words[:, 2::2]
    begins = probabilities[firsts, 1::2].max(axis=1)
    hits = []
    blank = np.array([text[end:start] == " " for end, start in zip(ends[:-1], starts[1:], strict=True)], dtype=bool)
    split = begins >= np.where(np.concatenate([[False], blank]), _SPLIT_AT_BLANK, _SPLIT)
    for first, last in _stretches(named, types, split):
        first, last = _trimmed(text, starts, ends, first, last)  # noqa: PLW2901
        if first > last:
            continue
        kind = TYPES[int(types[first : last + 1].sum(axis=0).argmax())]
        before, behind = _without_foreign([text[starts[i] : ends[i]] for i in range(first, last + 1)], kind)
        first, last = first + before, last - behind  # noqa: PLW2901
        if first > last:
            continue
        wordy = [i for i in range(first, last + 1) if _wordy(text[starts[i] : ends[i]])]
        raw = float(named[wordy].mean())
        if kind == "ADDRESS" and not _address_like(text[starts[first] : ends[last]], raw):
            continue
        score = float(np.interp(raw, *calibration[kind]))
        hits.append(ModelHit(int(starts[first]), int(ends[last]), kind, score, raw))
    noted = named >= _NOTED
    return Reading(tuple(hits), starts[noted], ends[noted], named[noted].astype(np.float16))


def _stretches(named: Matrix, types: Matrix, split: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(first word, last word) of runs of words that are part of a name, cut where another one begins."""
    inside = np.flatnonzero(named >= _WITHIN)
    if not len(inside):
        return
    kinds = types.argmax(axis=1)
    first = previous = int(inside[0])
    for at in inside[1:].tolist():
        new_kind = kinds[at] != kinds[previous] and types[at].max() >= _SPLIT and types[previous].max() >= _SPLIT
        if at > previous + 1 or split[at] or new_kind:
            yield first, previous
            first = at
        previous = at
    yield first, previous


def _trimmed(text: str, starts: NDArray[np.int32], ends: NDArray[np.int32], first: int, last: int) -> tuple[int, int]:
    """Without marks at both ends; first > last when there is nothing else."""
    while first <= last and not _wordy(text[starts[first] : ends[first]]):
        first += 1
    while last >= first and not _wordy(text[starts[last] : ends[last]]):
        last -= 1
    return first, last


def _without_foreign(words: Sequence[str], kind: str) -> tuple[int, int]:
    """How many of the words of a hit to leave out at either end, since they are another language's and no name.

    An address is left whole or out: its first word may be one of them ("rue du Four"), but with short numbers alone
    they are a sentence ("binnen 30 dagen").
    """
    after = [*words[1:], ""]
    strange = [
        not _wordy(word)
        or (is_foreign(word) and following not in _JOINTS)
        or (word.lower() in _ELIDED and following in _APOSTROPHES)
        for word, following in zip(words, after, strict=True)
    ]
    if kind == "ADDRESS":
        short = (word.isdecimal() and len(word) < _POSTCODE_FROM for word in words)
        return (len(words), 0) if all(map(or_, strange, short)) and any(map(is_foreign, words)) else (0, 0)
    before = next((i for i, is_strange in enumerate(strange) if not is_strange), len(words))
    behind = next((i for i, is_strange in enumerate(reversed(strange)) if not is_strange), 0)
    return before, behind


def _address_like(value: str, raw: float) -> bool:
    """Whether a street or a postcode could be in it: a long bare number is another tier's business."""
    if raw < _SURE_NUMBER and not any(char.isalpha() for char in value):
        return False
    if (coded := _CODED.fullmatch(value)) and not coded[1].endswith(_JOINED_ENDS):
        return False
    if sum(char.isdigit() for char in value) <= _POSTCODE_DIGITS or _STREET.search(value):
        return True
    return _LONG_POSTCODE.fullmatch(value) is not None


def _wordy(word: str) -> bool:
    return any(char.isalnum() for char in word)

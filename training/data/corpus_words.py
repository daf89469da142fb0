"""Which words a version's rows have, for invented names that must have none of them: counted once while it is frozen,
so that the page of one row need not read all the others.

Kept are 32-bit keyed hashes, four bytes a word, and no word. A word that shares its hash with one of them (one in
forty thousand, in a corpus of a hundred thousand words) counts as taken: another name is drawn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from assistants.vault import keyed_hash
from training.data.candidates import Candidate
from training.data.models import FrozenWords

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.models import DatasetVersion, Example

_WORD = re.compile(r"[^\W\d_]+")
_TYPE = np.dtype("<u4")


class TakenWords:
    """Answers ``word in taken`` for casefolded words."""

    def __init__(self, key: bytes, hashes: NDArray[np.uint32]) -> None:
        """``hashes``: sorted."""
        self._key = key
        self._hashes = hashes

    def __contains__(self, word: object) -> bool:
        wanted = _hash(self._key, str(word))
        place = int(np.searchsorted(self._hashes, np.uint32(wanted)))
        return place < len(self._hashes) and int(self._hashes[place]) == wanted


class WordCounter:
    """`add` each row as it is frozen, then `save`."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._seen: set[int] = set()

    def add(self, row: Candidate | Example) -> None:
        for text in _texts(row):
            if hash(text) not in self._seen:  # passages repeat, and are most of the text
                self._seen.add(hash(text))
                self._words.update(words_in(text))

    def save(self, dataset: DatasetVersion) -> None:
        key = _key(dataset)
        hashes = np.unique(np.fromiter((_hash(key, word) for word in self._words), dtype=_TYPE))
        FrozenWords.objects.update_or_create(dataset=dataset, defaults={"hashes": hashes.tobytes()})


def taken_words(dataset: DatasetVersion) -> TakenWords | None:
    """None of a version that has none: it was frozen without invented values, or an erasure has removed them."""
    kept = FrozenWords.objects.filter(dataset=dataset).first()
    return None if kept is None else TakenWords(_key(dataset), np.frombuffer(kept.hashes, dtype=_TYPE))


def words_in(text: str) -> Iterator[str]:
    return (word.casefold() for word in _WORD.findall(text))


def _texts(row: Candidate | Example) -> Iterable[str]:
    contexts, sentences = row.contexts, row.sentences
    return (row.question, row.rejected, *(c["text"] for c in contexts), *(s["text"] for s in sentences))


def _key(dataset: DatasetVersion) -> bytes:
    return keyed_hash("words of a dataset", dataset.pk)


def _hash(key: bytes, word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4, key=key).digest())

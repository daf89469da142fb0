"""The second pass: every value that was found once is looked for in all texts of a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from privacy.documents import Document
from privacy.entities import Entity, EntityTable, Value
from privacy.findings import Finding
from privacy.gazetteer import gazetteer
from privacy.values import TextWord, literal_key, name_words, needs_capital, ngrams

_MIN_PART_LENGTH = 3
_FEW = 100
"""So many words are quickly looked for one by one."""


@dataclass(frozen=True, slots=True)
class _Known:
    entity_type: str
    canonical: str
    private: bool


@dataclass
class LiteralIndex:
    """Values of this turn by their folded words, and those of earlier turns through the table."""

    table: EntityTable
    _values: dict[str, _Known] = field(default_factory=dict)
    _parts: dict[str, set[str]] = field(default_factory=dict)
    _lengths: set[int] = field(default_factory=set)
    _firsts: set[str] = field(default_factory=set)
    _asked: dict[str, _Known | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lengths |= self.table.literal_lengths

    def add(self, value: Value) -> bool:
        """Remember a value; whether it was new."""
        key = literal_key(value.text)
        known = self._values.get(key)
        if not key or (known is not None and (known.private or not value.private)):
            return False
        self._values[key] = _Known(value.entity_type, value.text, value.private)
        self._lengths.add(key.count(" ") + 1)
        self._firsts.add(key.split(" ", 1)[0])
        words = name_words(value.text) if value.entity_type == "PERSON" else []
        if len(words) > 1:
            for word in words:
                self._parts.setdefault(word, set()).add(value.text)
        return True

    def copy_for(self, table: EntityTable) -> LiteralIndex:
        """The same values for another conversation: folding a deny list of thousands once, not for every turn."""
        parts = {word: set(names) for word, names in self._parts.items()}
        return LiteralIndex(table, dict(self._values), parts, set(self._lengths), set(self._firsts))

    def is_given(self, text: str) -> bool:
        """Whether this value is known to be personal: by a deny list, the session, or the people themselves."""
        known = self._values.get(literal_key(text))
        return known is not None and known.private

    def hits(self, document: Document, *, given: bool = False) -> Iterator[tuple[Finding, str | None]]:
        """Findings of known values in the unmasked rest of a document, longest first; ``given``: of those alone that
        are known to be personal, whatever a recogniser says."""
        if not self._may_be_in(document):
            return
        covered: set[int] = set()
        # The table knows hashes of whole values only, so with one every stretch is a candidate.
        firsts = None if len(self.table) else self._firsts
        for first, length, key in ngrams(document.words, self._lengths, firsts):
            known = self._known(key)
            if known is not None and any(index in covered for index in range(first, first + length)):
                continue
            if (
                known is None
                or (given and not known.private)
                or not _applies(document, document.words[first], known, key)
            ):
                continue
            covered.update(range(first, first + length))
            yield _finding(document.words, first, length, known), known.canonical or None
        if not given and not document.trusted and "PERSON" in document.types:
            yield from self._part_hits(document, covered)

    def _may_be_in(self, document: Document) -> bool:
        """Whether the words of a document are worth making: in most texts of a turn no value of it stands."""
        if len(self.table) or len(self._firsts) + len(self._parts) > _FEW:
            return True
        folded = document.folded
        return any(word in folded for word in self._firsts) or any(word in folded for word in self._parts)

    def _known(self, key: str) -> _Known | None:
        known = self._values.get(key)
        if known is None and len(self.table):
            # A turn is read several times, and a keyed hash costs more than all else here.
            if key not in self._asked:
                entity = self.table.find_literal(key)
                self._asked[key] = _from_table(entity) if entity is not None else None
            known = self._asked[key]
        return known

    def _part_hits(self, document: Document, covered: set[int]) -> Iterator[tuple[Finding, str | None]]:
        for index, word in enumerate(document.words):
            if index in covered or not _can_be_part(word):
                continue
            names = self._parts.get(word.folded, set())
            if names or (len(self.table) and self.table.find_name_part(word.folded)):
                known = _Known("PERSON", next(iter(names)) if len(names) == 1 else "", False)
                yield _finding(document.words, index, 1, known), known.canonical or None


def _can_be_part(word: TextWord) -> bool:
    return (
        word.capital
        and len(word.folded) >= _MIN_PART_LENGTH
        and word.folded.isalpha()
        and not gazetteer().is_common(word.folded)
    )


def _from_table(entity: Entity) -> _Known:
    return _Known(entity.entity_type, "", entity.private)


def _finding(words: list[TextWord], first: int, length: int, known: _Known) -> Finding:
    return Finding(
        start=words[first].start,
        end=words[first + length - 1].end,
        entity_type=known.entity_type,
        score=1.0,
        recognizer="conversation:literal",
        private=known.private,
    )


def _applies(document: Document, word: TextWord, known: _Known, key: str) -> bool:
    """Whether a known value is masked here.

    An everyday word is a name only where it is capitalised. In a trusted document a single word
    is masked only if somebody introduced themselves by it. What a deny list names is masked
    whatever types the policy masks.
    """
    if known.entity_type not in document.types and not (document.trusted or known.private):
        return False
    if needs_capital(key):
        return word.capital and not document.trusted
    return not document.trusted or " " in key or known.private

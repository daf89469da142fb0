"""The texts of one call while they are scrubbed: what is found is masked and the rest read again, until nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from privacy.documents import Document, Span
from privacy.entities import EntityTable, Value
from privacy.findings import Finding, MaskedText, ScrubError
from privacy.literals import LiteralIndex
from privacy.name_tier import NAME_TYPES, read_names, weigh
from privacy.policy import Policy
from privacy.values import identity, ngrams, words_of

if TYPE_CHECKING:
    from privacy.analyzer import OfflineAnalyzer
    from privacy.name_model.decode import Reading

Kind = Literal["user", "context", "response", "label"]
"""``label``: a file name, a tag, a single word of metadata. In no sentence, so that only lists and patterns read it."""

# What a company may print about itself, so that questions and answers may repeat it.
PUBLIC_TYPES = frozenset({"PERSON", "EMAIL", "PHONE", "ADDRESS", "LOCATION", "URL", "IP_ADDRESS"})
# Masking changes what stands near what, so the rest is read again until nothing more is found.
_MAX_ROUNDS = 8
# The name model settles within three; on text made to unsettle it, patterns and lists have the last word.
_NAME_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class ScrubText:
    """A text and who wrote it. `trusted` overrides the policy's rule for contexts."""

    kind: Kind
    text: str
    trusted: bool | None = None


class Turn:
    """The texts of one call with their shared state."""

    def __init__(
        self,
        policy: Policy,
        analyzer: OfflineAnalyzer,
        texts: Sequence[ScrubText],
        table: EntityTable,
        *,
        literals: LiteralIndex,
        allowed: frozenset[str],
    ) -> None:
        self._policy = policy
        self._analyzer = analyzer
        self._table = table
        self._documents = [self._document(item) for item in texts]
        self._labels = {d for item, d in zip(texts, self._documents, strict=True) if item.kind == "label"}
        self._literals = literals
        self._allowed = allowed
        self._allowed_lengths = {key.count(" ") + 1 for key in allowed}
        self._printed: dict[int, set[tuple[str, str]]] = {}
        self._names: dict[Document, Reading] = {}
        self._found: dict[Document, list[Finding]] = {}

    def _document(self, item: ScrubText) -> Document:
        trusted = self._policy.trust_contexts if item.trusted is None else item.trusted
        trusted = trusted and item.kind in ("context", "label")
        return Document(item.text, trusted, self._policy.types_for(trusted=trusted))

    def find_all(self) -> None:
        """Mask until a whole round finds nothing new."""
        # Before anything is recognised: a finder that takes half of such a value for a name would leave the other half.
        for document in self._documents:
            document.add(list(self._literals.hits(document, given=True)))
        unread = list(self._documents)
        self._found = {document: self._analyzer.find(document.view.text, document.types) for document in unread}
        plain = {document for document in unread if self._mask_plain(document)}
        for round_ in range(_MAX_ROUNDS):
            self._read_names(unread if round_ < _NAME_ROUNDS else [])
            changed = [document for document in unread if self._recognise(document) or document in plain]
            plain.clear()
            changed += [document for document in self._documents if self._repeat(document)]
            if not changed:
                return
            unread = [document for document in self._documents if document in changed]
        raise ScrubError(f"something new was found in each of {_MAX_ROUNDS} readings; the text stays held")

    def _read_names(self, documents: Sequence[Document]) -> None:
        """All in one batch; also what was masked since, so that a scrubbed text scrubbed again stays as it is."""
        named = [document for document in documents if document.types & NAME_TYPES and document not in self._labels]
        self._names = dict(zip(named, read_names([document.view.text for document in named]), strict=True))

    def _mask_plain(self, document: Document) -> bool:
        """Masks what patterns are sure of and no list calls part of a name; whether there was any.

        The name model need not read an address or a number first, and all of its sentence again when it is masked.
        """
        found = self._found[document]
        named = [other for other in found if other.entity_type in NAME_TYPES]
        plain = [
            finding
            for finding in found
            if finding.entity_type not in NAME_TYPES
            and finding.score >= self._policy.threshold(finding.entity_type)
            and not any(other.start < finding.end and finding.start < other.end for other in named)
        ]
        before = document.view
        if not plain or not self._mask(document, plain):
            return False
        self._found[document] = [
            replace(finding, start=start, end=last + 1)
            for finding in found
            if (start := document.view.place(before.source(finding.start))) is not None
            and (last := document.view.place(before.source(finding.end - 1))) is not None
        ]
        return True

    def _recognise(self, document: Document) -> bool:
        found = self._found.pop(document, None)
        if found is None:
            found = self._analyzer.find(document.view.text, document.types)
        if document in self._names:
            found = weigh(self._names[document], found, document.types)
        return self._mask(document, found)

    def _mask(self, document: Document, found: Sequence[Finding]) -> bool:
        """Masks those of the findings that the policy wants masked; whether there were any."""
        text = document.view.text
        allowed = self._allowed_stretches(document)
        kept: list[tuple[Finding, str | None]] = []
        for finding in found:
            if finding.score < self._policy.floor(finding.entity_type, trusted=document.trusted):
                continue
            if any(start <= finding.start and finding.end <= end for start, end in allowed):
                continue
            if self._is_public(document, finding):
                continue
            if finding.score < self._policy.threshold(finding.entity_type):
                value = text[finding.start : finding.end]
                if self._table.is_released(Value(finding.entity_type, value)):
                    continue
                # What the deny list names is no question, however low the score.
                kept.append((finding if self._literals.is_given(value) else replace(finding, uncertain=True), None))
                continue
            kept.append((finding, None))
        spans = document.add(kept)
        for span in spans:
            self._remember(document, span)
        return bool(spans)

    def _repeat(self, document: Document) -> bool:
        return bool(document.add(list(self._literals.hits(document))))

    def _remember(self, document: Document, span: Span) -> None:
        value = document.value(span)
        self._literals.add(Value(span.finding.entity_type, value, span.finding.private))

    def _allowed_stretches(self, document: Document) -> list[tuple[int, int]]:
        if not self._allowed:
            return []
        words = document.words
        return [
            (words[first].start, words[first + size - 1].end)
            for first, size, key in ngrams(words, self._allowed_lengths)
            if key in self._allowed
        ]

    def _is_public(self, document: Document, finding: Finding) -> bool:
        """Whether a trusted context of this turn prints the same entity."""
        if document.trusted or finding.private or finding.entity_type not in PUBLIC_TYPES:
            return False
        value = Value(finding.entity_type, document.view.text[finding.start : finding.end])
        if self._table.is_known(value):
            return False
        key = " ".join(word.folded for word in words_of(value.text))
        wanted = (value.entity_type, identity(value.entity_type, value.text))
        return any(
            wanted in self._entities_printed_in(index)
            for index, other in enumerate(self._documents)
            if other.trusted and key and f" {key} " in other.printed
        )

    def _entities_printed_in(self, index: int) -> set[tuple[str, str]]:
        if index not in self._printed:
            text, types = self._documents[index].normalised.text, self._policy.entity_types
            self._printed[index] = {
                (found.entity_type, identity(found.entity_type, text[found.start : found.end]))
                for found in weigh(read_names([text])[0], self._analyzer.find(text, types), types)
                if found.score >= self._policy.threshold(found.entity_type)
            }
        return self._printed[index]

    def render(self) -> list[MaskedText]:
        """Number the entities in reading order and write the masked texts."""
        values: list[Value] = []
        for document in self._documents:
            for span in document.spans:
                kind = span.finding.entity_type
                if span.ordinal is not None:
                    self._table.reserve(kind, span.ordinal)
                else:
                    values.append(Value(kind, document.value(span), span.finding.private))
        numbers = iter([entity.ordinal for entity in self._table.assign(values)])
        return [
            document.render([next(numbers) if span.ordinal is None else span.ordinal for span in document.spans])
            for document in self._documents
        ]

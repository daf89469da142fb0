"""A text while it is being scrubbed: what is masked so far, and what is still to be read."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from privacy.findings import PLACEHOLDER, Finding, MaskedSpan, MaskedText, placeholder
from privacy.gazetteer import fold
from privacy.normalise import NormalisedText, normalise
from privacy.values import TextWord, words_of

# Stands for one placeholder in what the recognisers read. A private-use character: no pattern
# matches it, and a text that contains it by itself is only read in two halves.
FILLER = "\ue000"
_ADDRESS_GAP = re.compile(r"[\s,|]{0,3}")


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) of the normalised text, masked or already a placeholder (`ordinal` given).

    `canonical` is the value under which the entity table files it, when it is not the text.
    """

    start: int
    end: int
    finding: Finding
    ordinal: int | None = None
    canonical: str | None = None


@dataclass(frozen=True)
class View:
    """The unmasked rest of a document, each masked span shown as one FILLER."""

    text: str
    cuts: tuple[int, ...]
    sources: tuple[int, ...]

    def source(self, position: int) -> int:
        """Position in the normalised text of a position of the view."""
        index = bisect_right(self.cuts, position) - 1
        return self.sources[index] + position - self.cuts[index]

    def place(self, source: int) -> int | None:
        """Position in the view of a position of the normalised text; None where that is masked."""
        index = bisect_right(self.sources, source) - 1
        # Behind the stretch before the first mask, masks and stretches take turns.
        return None if index % 2 else self.cuts[index] + source - self.sources[index]


@dataclass(eq=False)
class Document:
    """One text of a turn with its spans in normalised coordinates, sorted and disjoint."""

    original: str
    trusted: bool
    types: frozenset[str]
    normalised: NormalisedText = field(init=False)
    spans: list[Span] = field(init=False)
    view: View = field(init=False)
    _words: list[TextWord] | None = field(init=False, default=None)
    _folded: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.normalised = normalise(self.original)
        self.spans = [_existing(match) for match in PLACEHOLDER.finditer(self.normalised.text)]
        self._refresh()

    def _refresh(self) -> None:
        self.view = _view(self.normalised.text, self.spans)
        self._words = self._folded = None

    @property
    def words(self) -> list[TextWord]:
        """Of the view. Made when they are asked for: without lists or earlier values nobody asks, and they take as long
        as half of the recognisers."""
        if self._words is None:
            self._words = words_of(self.view.text)
        return self._words

    @property
    def folded(self) -> str:
        """The view, folded: a word that is not in it is none of `words`."""
        if self._folded is None:
            self._folded = fold(self.view.text.replace(FILLER, " "))
        return self._folded

    @cached_property
    def printed(self) -> str:
        """All folded words of the text as it was given, with a blank before and behind each."""
        return f" {' '.join(word.folded for word in words_of(self.normalised.text))} "

    def add(self, found: Iterable[tuple[Finding, str | None]]) -> list[Span]:
        """Mask findings of the current view (each with its canonical value, or None).

        Overlaps are merged, and what stands around a placeholder is masked in pieces. Returns the
        new spans.
        """
        new: list[Span] = []
        for finding, canonical in _merged(self.view.text, list(found)):
            for start, end in _pieces(self.view.text, finding):
                source = self.normalised.whole_characters(self.view.source(start), self.view.source(end - 1) + 1)
                if not new or source[0] >= new[-1].end:
                    new.append(Span(*source, finding, canonical=canonical))
        if new:
            self.spans = sorted(self.spans + new, key=lambda span: span.start)
            self._refresh()
        return new

    def value(self, span: Span) -> str:
        """The normalised text of a span, or the value it is filed under."""
        return span.canonical or self.normalised.text[span.start : span.end]

    def render(self, ordinals: Sequence[int]) -> MaskedText:
        """The masked text; `ordinals` has one number per span, in order."""
        parts: list[str] = []
        spans: list[MaskedSpan] = []
        position = length = 0
        for span, ordinal in zip(self.spans, ordinals, strict=True):
            start, end = self.normalised.original_span(span.start, span.end)
            start = max(start, position)
            if start >= end:
                continue
            kept = self.original[position:start]
            existing = span.ordinal is not None
            shown = self.original[start:end] if existing else placeholder(span.finding.entity_type, ordinal)
            length += len(kept)
            place = (length, length + len(shown))
            spans.append(_masked_span(span.finding, ordinal, place, (start, end)))
            length += len(shown)
            parts += [kept, shown]
            position = end
        parts.append(self.original[position:])
        return MaskedText("".join(parts), tuple(spans))


def _masked_span(finding: Finding, ordinal: int, shown: tuple[int, int], original: tuple[int, int]) -> MaskedSpan:
    return MaskedSpan(
        start=shown[0],
        end=shown[1],
        entity_type=finding.entity_type,
        ordinal=ordinal,
        score=round(finding.score, 4),
        recognizer=finding.recognizer,
        context_word=finding.context_word,
        original_start=original[0],
        original_end=original[1],
        uncertain=finding.uncertain,
    )


def _existing(match: re.Match[str]) -> Span:
    finding = Finding(match.start(), match.end(), match.group(1), 1.0, "existing")
    return Span(match.start(), match.end(), finding, ordinal=int(match.group(2)))


def _view(text: str, spans: Sequence[Span]) -> View:
    parts: list[str] = []
    cuts, sources = [0], [0]
    position = length = 0
    for span in spans:
        parts += [text[position : span.start], FILLER]
        length += span.start - position
        cuts.append(length)
        sources.append(span.start)
        length += 1
        position = span.end
        cuts.append(length)
        sources.append(position)
    parts.append(text[position:])
    return View("".join(parts), tuple(cuts), tuple(sources))


def _pieces(text: str, finding: Finding) -> list[tuple[int, int]]:
    """The stretches of a finding between placeholders that contain a letter or digit."""
    pieces = []
    position = finding.start
    for part in text[finding.start : finding.end].split(FILLER):
        start, end = position, position + len(part)
        position = end + 1
        stripped = part.strip()
        if any(char.isalnum() for char in stripped):
            start += len(part) - len(part.lstrip())
            pieces.append((start, start + len(stripped)))
    return pieces


def _merged(text: str, found: list[tuple[Finding, str | None]]) -> list[tuple[Finding, str | None]]:
    """Disjoint findings: overlapping ones become their union, typed by the longest."""
    found.sort(key=lambda item: (item[0].start, -item[0].end))
    merged: list[tuple[Finding, str | None]] = []
    for finding, canonical in found:
        if merged and _belongs(text, merged[-1][0], finding):
            previous, previous_canonical = merged.pop()
            best = max(previous, finding, key=lambda f: (f.end - f.start, f.score))
            union = Finding(
                previous.start,
                max(previous.end, finding.end),
                best.entity_type,
                best.score,
                best.recognizer,
                best.context_word,
                previous.private or finding.private,
                previous.uncertain and finding.uncertain,
            )
            same = (union.start, union.end) == (best.start, best.end)
            chosen = previous_canonical if best is previous else canonical
            merged.append((union, chosen if same else None))
        else:
            merged.append((finding, canonical))
    return merged


def _belongs(text: str, left: Finding, right: Finding) -> bool:
    if right.start < left.end:
        return True
    return (
        left.entity_type == "ADDRESS"
        and right.entity_type in {"ADDRESS", "LOCATION"}
        and _ADDRESS_GAP.fullmatch(text, left.end, right.start) is not None
    )

"""Runs the recognisers over a text and weighs their hits by the words around them.

Presidio's AnalyzerEngine did this once. It brings spaCy, and that torch and transformers, into every process that
scrubs: seconds and hundreds of megabytes for six patterns and a context window. It is still what the recognisers are
measured against (`privacy.presidio_set`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from privacy.context import ContextWords, Nearby, raised
from privacy.features import Features
from privacy.findings import Finding
from privacy.remembered import Remembered
from privacy.scanning import Hit, Scan

# Texts of at least this many characters are searched once, as long as they are remembered.
_REMEMBER_FROM = 64
# A finding takes some 150 bytes and an entry without findings about as much, so this is at most some 6 MB.
_ROOM = 40_000


class OfflineAnalyzer:
    """The given recognisers; safe for threads. Nothing is loaded, downloaded or looked up."""

    def __init__(self, scans: Sequence[Scan]) -> None:
        self._scans = [(scan, ContextWords(scan.context)) for scan in scans]
        self._known: Remembered[tuple[Finding, ...]] = Remembered(_ROOM, lambda found: len(found) + 1)

    def find(self, text: str, entity_types: Collection[str]) -> list[Finding]:
        """Everything the recognisers of these types report, before thresholds.

        Texts of some length are remembered by a keyed digest: the same passages come back in most
        turns of a log. What is remembered are places and types, never text.

        Raises ScrubTimeout when one of them could not finish.
        """
        if len(text) < _REMEMBER_FROM:
            return self._search(text, entity_types)
        key = self._known.key(text, entity_types)
        known = self._known.get(key)
        if known is None:
            known = tuple(self._search(text, entity_types))
            self._known.put(key, known)
        return list(known)

    def _search(self, text: str, entity_types: Collection[str]) -> list[Finding]:
        features, nearby = Features(text), Nearby(text)
        found: list[Finding] = []
        for scan, context in self._scans:
            if scan.entity_type in entity_types and (hits := scan.hits(features)):
                found += _weighed(scan, hits, context, features, nearby)
        return found


def _weighed(
    scan: Scan, hits: Sequence[Hit], context: ContextWords, features: Features, nearby: Nearby
) -> Iterator[Finding]:
    """The hits as findings, their scores raised where a context word stands near."""
    # Most texts have none of a recogniser's words, and then nobody needs to look around its hits.
    any_near = context.any_in(features)
    for hit in hits:
        word = context.near(nearby, hit.start, hit.end) if any_near else None
        yield Finding(
            start=hit.start,
            end=hit.end,
            entity_type=scan.entity_type,
            score=float(raised(hit.score) if word else hit.score),
            recognizer=f"{scan.name}:{hit.rule}",
            context_word=word or hit.context_word,
            private=hit.private,
        )

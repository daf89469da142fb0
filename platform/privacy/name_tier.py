"""Names by lists, cues and the trained model together: what each of them says about a stretch, weighed.

The model knows context, the lists know names. The lists correct the model's type and lend weight to what it is
unsure of; the model takes back what stands in a list by accident ("Add", "Reader"). A cue ("my name
is") or a title needs nobody's consent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from privacy.findings import Finding

if TYPE_CHECKING:
    from privacy.documents import View
    from privacy.name_model.decode import ModelHit, Reading

NAME_TYPES = frozenset({"PERSON", "LOCATION", "ADDRESS"})
RECOGNISER = "NameModel"
_LISTS = ("PersonScan:name lists", "PersonScan:beside a person", "PlaceScan:place list")
# A word that the model takes for part of a name with less than this is a name only by a strong entry in the lists.
_UNLIKELY = 0.02
_DOUBTFUL = 0.1
_STRONG_ENTRY = 0.7
_WEAK_ENTRY = 0.45
_DISCOUNT = 0.5
# From this calibrated score on, the model's type stands against the lists'.
_SURE = 0.9
_LIST_WEIGHT = 0.6
_LISTED = frozenset({"PERSON", "LOCATION"})
_LISTED_FROM = 0.5
_PATTERN_FROM = 0.4


@dataclass(frozen=True)
class NameReading:
    """What the model said about a text; `view` is how the text was shown to it, where parts were masked already."""

    reading: Reading
    view: View | None = None

    def weigh(self, found: Iterable[Finding], types: frozenset[str], view: View | None = None) -> list[Finding]:
        """The findings of the other recognisers, rescored, with the model's own of the given types.

        `view` is the text in which `found` was found, when more is masked by now. The model's own findings are left out
        then: they were taken into account when nothing was.
        """
        later = view is not None and self.view is not None and view.text != self.view.text
        place = view.source if view is not None else None
        findings = [self._rescored(finding, place) for finding in found]
        if not later:
            wanted = [hit for hit in self.reading.hits if hit.entity_type in types and not _known_better(hit, findings)]
            findings += [_finding(hit, findings) for hit in wanted]
        return findings

    def _rescored(self, finding: Finding, place: Callable[[int], int] | None) -> Finding:
        if not finding.recognizer.startswith(_LISTS):
            return finding
        start, end = finding.start, finding.end
        if place is not None:
            start, end = place(start), place(end - 1) + 1
        likely = self._spots.likelihood(start, end)
        doubted = likely < _UNLIKELY and finding.score < _STRONG_ENTRY
        doubted = doubted or (likely < _DOUBTFUL and finding.score < _WEAK_ENTRY)
        return replace(finding, score=finding.score * _DISCOUNT) if doubted else finding

    @cached_property
    def _spots(self) -> Reading:
        """The reading with its words in places of the normalised text."""
        if self.view is None or len(self.view.cuts) == 1:
            return self.reading
        return self.reading.moved(self.view.cuts, self.view.sources)


def read_names(views: Sequence[View]) -> list[NameReading]:
    """What the model says about each text, in one batch. Raises NameModelError (a ScrubError)."""
    from privacy.name_model.finder import name_model

    readings = name_model().read([view.text for view in views])
    return [NameReading(reading, view) for reading, view in zip(readings, views, strict=True)]


def read_name(text: str) -> NameReading:
    """What the model says about one text. Raises as `read_names`."""
    from privacy.name_model.finder import name_model

    return NameReading(name_model().read([text])[0])


def _known_better(hit: ModelHit, others: Sequence[Finding]) -> bool:
    """Whether a pattern says of at least half of the hit that it is something else: an account number, a user name."""
    return any(
        2 * (min(hit.end, other.end) - max(hit.start, other.start)) >= hit.end - hit.start
        for other in others
        if other.entity_type not in NAME_TYPES and other.score >= _PATTERN_FROM
    )


def _finding(hit: ModelHit, others: Sequence[Finding]) -> Finding:
    """The model's hit with the type and weight that the lists give it."""
    score, kind = hit.score, hit.entity_type
    place = hit.start, hit.end
    same = [other for other in others if (other.start, other.end) == place and other.entity_type in _LISTED]
    kinds = {other.entity_type for other in same if other.score >= _LISTED_FROM}
    if kinds and kind not in kinds and hit.score < _SURE:
        kind = max(same, key=lambda other: other.score).entity_type
    support = max((other.score for other in same if other.entity_type == kind), default=0.0)
    score = 1 - (1 - score) * (1 - _LIST_WEIGHT * support)
    return Finding(hit.start, hit.end, kind, round(score, 4), f"{RECOGNISER}:{hit.entity_type.lower()}")

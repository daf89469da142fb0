"""Names by lists, cues and the trained model together: what each of them says about a stretch, weighed.

The model knows context, the lists know names. The lists correct the model's type and lend weight to what it is
unsure of; the model takes back what stands in a list by accident ("Add", "Reader"). A cue ("my name
is") or a title needs nobody's consent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from privacy.findings import Finding

if TYPE_CHECKING:
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


def read_names(texts: Sequence[str]) -> list[Reading]:
    """What the model says about each text, in one batch. Raises NameModelError (a ScrubError)."""
    from privacy.name_model.finder import name_model

    return name_model().read(texts)


def weigh(reading: Reading, found: Iterable[Finding], types: frozenset[str]) -> list[Finding]:
    """The findings of the other recognisers in a text, rescored, with the model's own of the given types."""
    findings = [_rescored(finding, reading) for finding in found]
    wanted = [hit for hit in reading.hits if hit.entity_type in types and not _known_better(hit, findings)]
    return findings + [_finding(hit, findings) for hit in wanted]


def _rescored(finding: Finding, reading: Reading) -> Finding:
    if not finding.recognizer.startswith(_LISTS):
        return finding
    likely = reading.likelihood(finding.start, finding.end)
    doubted = likely < _UNLIKELY and finding.score < _STRONG_ENTRY
    doubted = doubted or (likely < _DOUBTFUL and finding.score < _WEAK_ENTRY)
    return replace(finding, score=finding.score * _DISCOUNT) if doubted else finding


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
    cue = next((other.context_word for other in same if other.context_word), None)
    return Finding(hit.start, hit.end, kind, round(score, 4), f"{RECOGNISER}:{hit.entity_type.lower()}", cue)

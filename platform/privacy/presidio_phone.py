"""Presidio's telephone recogniser with one search for candidates that all its regions share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from phonenumbers import PhoneMetadata, PhoneNumberMatch, PhoneNumberMatcher, phonenumbermatcher, phonenumberutil

from privacy.features import Features
from privacy.presidio import predefined_recognizers
from privacy.scanning import Hit

_DIGIT = re.compile(r"\d")
_PLAIN = re.compile(r"[0-9 \u00a0().\-/]+")
_PLUS = ("+", "\uff0b")
# What a candidate with a plus counts for: it may be of any country.
_ENOUGH = 100
# Shorter candidates are years and house numbers, not worth forgetting and no harm to remember.
_REMEMBERED_DIGITS = 6


class _Shared:
    """What the regions share while one text is searched: candidates by place, verdicts on international numbers."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._next: dict[int, tuple[int, str, int] | None] = {}
        self.international: dict[tuple[str, int], PhoneNumberMatch | None] = {}
        self.settled: set[int] = set()

    def candidate(self, index: int) -> tuple[int, str, int] | None:
        """(start, text, digits) of the next candidate at or after a place; with a plus it has digits enough."""
        if index not in self._next:
            match = phonenumbermatcher._PATTERN.search(self.text, index)
            if match is None:
                self._next[index] = None
            else:
                number = _first_number(match.group())
                self._next[index] = match.start(), number, _digits(number)
        return self._next[index]


def _digits(candidate: str) -> int:
    if any(plus in candidate for plus in _PLUS):
        return _ENOUGH
    return len(_DIGIT.findall(candidate))


def _first_number(candidate: str) -> str:
    second = phonenumberutil._SECOND_NUMBER_START_PATTERN.search(candidate)
    return candidate[: second.start()] if second else candidate


class _Matcher(PhoneNumberMatcher):
    """A matcher of one region over shared candidates; those that are too short for the region are not parsed."""

    def __init__(self, shared: _Shared, region: str, leniency: int) -> None:
        super().__init__(shared.text, region, leniency=leniency)
        self._shared = shared
        self._plan = _plan(region)

    def _find(self, index: int) -> PhoneNumberMatch | None:
        while self._max_tries > 0:
            found = self._shared.candidate(index)
            if found is None:
                return None
            start, candidate, digits = found
            # What one region takes whole, the others take whole or in parts, and parts are dropped as contained.
            hopeful = digits >= self._plan.fewest and start not in self._shared.settled
            match = self._extract_match(candidate, start) if hopeful else None
            if match is not None:
                if len(match.raw_string) == len(candidate):
                    self._shared.settled.add(start)
                return match
            self._max_tries -= 1
            index = start + len(candidate)
        return None

    def _parse_and_verify(self, candidate: str, offset: int) -> PhoneNumberMatch | None:
        if candidate.startswith(_PLUS):
            key = (candidate, offset)
            if key not in self._shared.international:
                self._shared.international[key] = super()._parse_and_verify(candidate, offset)
            return self._shared.international[key]
        if self._plan.excludes(candidate):
            return None
        if len(candidate) <= _REMEMBERED_DIGITS and not _short_number(candidate, self.preferred_region, self.leniency):
            return None
        return super()._parse_and_verify(candidate, offset)


@lru_cache(maxsize=20_000)
def _short_number(candidate: str, region: str, leniency: int) -> bool:
    """Whether a candidate of a few characters could be a number at all, whatever stands around it."""
    match = PhoneNumberMatcher(candidate, region, leniency=leniency)
    return PhoneNumberMatcher._parse_and_verify(match, candidate, 0) is not None


@dataclass(frozen=True)
class _Plan:
    """What a region's numbers look like before anything is parsed."""

    lengths: frozenset[int]
    fewest: int
    prefixes: re.Pattern[str] | None

    def excludes(self, candidate: str) -> bool:
        """No prefix can be taken off, and the number has a length that the region does not have."""
        if self.prefixes is None or not _PLAIN.fullmatch(candidate):
            return False
        digits = "".join(_DIGIT.findall(candidate))
        return len(digits) not in self.lengths and self.prefixes.match(digits) is None


@lru_cache(maxsize=64)
def _plan(region: str) -> _Plan:
    metadata = PhoneMetadata.metadata_for_region(region)
    if metadata is None or metadata.general_desc is None:
        return _Plan(frozenset(), 1, None)
    lengths = frozenset(metadata.general_desc.possible_length)
    prefixes = [metadata.international_prefix, metadata.national_prefix_for_parsing, str(metadata.country_code)]
    joined = "|".join(f"(?:{prefix})" for prefix in prefixes if prefix)
    return _Plan(lengths, min(lengths), re.compile(joined))


class SharedPhone(predefined_recognizers.PhoneRecognizer):
    """The same telephone numbers that Presidio finds, each once."""

    def hits(self, features: Features) -> list[Hit]:
        """The numbers of all regions."""
        return [Hit(start, end, self.SCORE, "phonenumbers") for start, end in sorted(set(self._spans(features.text)))]

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        shared = _Shared(text)
        if shared.candidate(0) is None:
            return
        for region in self.supported_regions:
            for match in _Matcher(shared, region, self.leniency):
                yield match.start, match.end

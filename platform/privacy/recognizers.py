"""The set of recognisers and the engine around them, built once per process and region set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache

from privacy.addresses import AddressScan
from privacy.analyzer import OfflineAnalyzer
from privacy.credentials import credential_recognizers
from privacy.document_numbers import document_recognizers
from privacy.features import Features
from privacy.identity_numbers import identity_recognizers
from privacy.names import NameFinder
from privacy.national_numbers import NationalScan
from privacy.network_ids import network_recognizers
from privacy.presidio import EntityRecognizer
from privacy.scanning import Hit, ScanRecognizer
from privacy.spelt_numbers import SpeltPhoneScan
from privacy.telephone import PhoneScan

_BUILDING = threading.Lock()


class PersonScan(ScanRecognizer):
    """People by name lists and cues."""

    def __init__(self, finder: NameFinder) -> None:
        self._finder = finder
        super().__init__("PERSON")

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits of the name finder."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`."""
        return self._finder.people(features)


class PlaceScan(ScanRecognizer):
    """Places by name lists."""

    def __init__(self, finder: NameFinder) -> None:
        self._finder = finder
        super().__init__("LOCATION")

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits of the name finder."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`."""
        return self._finder.places(features)


def build_recognizers(regions: tuple[str, ...]) -> list[EntityRecognizer]:
    """One new recogniser of every kind; `regions` are those whose phone formats are known."""
    finder = NameFinder()
    return [
        *network_recognizers(),
        *identity_recognizers(),
        *document_recognizers(),
        *credential_recognizers(),
        NationalScan(),
        PhoneScan(regions),
        SpeltPhoneScan(),
        AddressScan(),
        PersonScan(finder),
        PlaceScan(finder),
    ]


@lru_cache(maxsize=8)
def _cached_analyzer(regions: tuple[str, ...]) -> OfflineAnalyzer:
    return OfflineAnalyzer(build_recognizers(regions))


def get_analyzer(regions: tuple[str, ...]) -> OfflineAnalyzer:
    """The process-wide engine for these regions; the first call takes seconds, later ones none."""
    with _BUILDING:
        return _cached_analyzer(regions)

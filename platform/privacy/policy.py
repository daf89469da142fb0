"""What to mask, how sure to be, and what to leave: a versioned value with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from privacy.findings import ALL_TYPES, TRUSTED_SOURCE_TYPES

# Raised whenever the recognisers change what they find, so that stored digests change with them.
RECOGNISER_VERSION = 6

DEFAULT_THRESHOLDS: dict[str, float] = {
    "PERSON": 0.5,
    "LOCATION": 0.5,
    "ADDRESS": 0.5,
    "PHONE": 0.5,
    "BANK_ACCOUNT": 0.4,
    "PASSPORT": 0.4,
    "DRIVER_LICENSE": 0.4,
    "US_SSN": 0.4,
}
DEFAULT_THRESHOLD = 0.5

# How far below the threshold a finding is still masked, but marked uncertain. Only where a look of a
# person is worth it: bare dates and numbers of no known shape would fill the review with nothing.
DEFAULT_REVIEW_BAND: dict[str, float] = {
    "PERSON": 0.1,
    "LOCATION": 0.1,
    "ADDRESS": 0.1,
}


@dataclass(frozen=True)
class Policy:
    """Masking rules of one assistant.

    `allow` and `deny` hold values (not patterns), compared without regard to case; deny values
    are masked as PERSON. `trusted_types` are the only types masked in a context of a trusted
    source; `trust_contexts` says whether contexts are trusted unless told otherwise. `regions`
    are ISO 3166 codes whose national telephone formats are known. `review_band` says per type how
    far below its threshold a finding is masked all the same, as uncertain.

    Raises ValueError for an unknown type, a threshold or band outside 0..1 or a malformed list.
    """

    version: int = 1
    entity_types: frozenset[str] = ALL_TYPES
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_THRESHOLDS))
    review_band: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_REVIEW_BAND))
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    trust_contexts: bool = True
    trusted_types: frozenset[str] = TRUSTED_SOURCE_TYPES
    regions: tuple[str, ...] = ("GB", "US", "IE", "DE", "FR", "ES", "IT", "NL", "IN", "AU")
    max_chars: int = 2_000_000

    def __post_init__(self) -> None:
        unknown = (self.entity_types | self.trusted_types | set(self.thresholds) | set(self.review_band)) - ALL_TYPES
        if unknown:
            raise ValueError(f"unknown entity types: {', '.join(sorted(unknown))}")
        if any(not 0 <= threshold <= 1 for threshold in self.thresholds.values()):
            raise ValueError("thresholds lie between 0 and 1")
        if any(not 0 <= band <= 1 for band in self.review_band.values()):
            raise ValueError("review bands lie between 0 and 1")
        if any(not value.strip() for value in self.allow + self.deny):
            raise ValueError("allow and deny lists hold no empty values")
        if any(len(region) != 2 or not region.isupper() for region in self.regions):
            raise ValueError("regions are two-letter ISO 3166 codes in capitals")
        if self.max_chars < 1:
            raise ValueError("max_chars is at least 1")

    def threshold(self, entity_type: str) -> float:
        """Lowest score at which a finding of this type is masked."""
        return self.thresholds.get(entity_type, DEFAULT_THRESHOLD)

    def floor(self, entity_type: str, *, trusted: bool) -> float:
        """Lowest score at which a finding is masked at all, certain or not. What trusted documents print is never
        uncertain: a band there would take the house's own contacts out of its answers."""
        band = 0.0 if trusted else self.review_band.get(entity_type, 0.0)
        # Scores and bands are written with two digits; 0.5 - 0.1 must not miss 0.4.
        return round(self.threshold(entity_type) - band, 6)

    def types_for(self, *, trusted: bool) -> frozenset[str]:
        """Entity types masked in a text of a trusted or an untrusted source."""
        return self.trusted_types if trusted else self.entity_types

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form with sorted lists."""
        plain = asdict(self)
        for name in ("thresholds", "review_band"):
            plain[name] = dict(sorted(plain[name].items()))
        for name in ("entity_types", "trusted_types"):
            plain[name] = sorted(plain[name])
        for name in ("allow", "deny", "regions"):
            plain[name] = list(plain[name])
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Policy:
        """The policy that `to_dict` wrote. Raises ValueError for unknown keys or values."""
        unknown = set(plain) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown policy settings: {', '.join(sorted(unknown))}")
        values = dict(plain)
        for name in ("entity_types", "trusted_types"):
            if name in values:
                values[name] = frozenset(values[name])
        for name in ("allow", "deny", "regions"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)

    def digest(self) -> str:
        """SHA-256 of the policy, the recognisers' version and the name model's digest, hexadecimal."""
        from privacy.name_model.weights import model_digest

        content = {"policy": self.to_dict(), "recognisers": RECOGNISER_VERSION, "names": model_digest()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

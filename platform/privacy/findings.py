"""What the recognisers find and what the scrubber returns: plain immutable records."""

from __future__ import annotations

import re
from dataclasses import dataclass


class ScrubError(Exception):
    """Scrubbing did not finish, so the text must stay held. The message never quotes the text."""


class ScrubTimeout(ScrubError):
    """A pattern ran longer than it may; the text was not searched completely."""


class TextTooLong(ScrubError):
    """The text is longer than the policy lets anybody scrub."""


HARD_TYPES: frozenset[str] = frozenset(
    {
        "PERSON",
        "EMAIL",
        "PHONE",
        "ADDRESS",
        "CREDIT_CARD",
        "IBAN",
        "BANK_ACCOUNT",
        "US_SSN",
        "UK_NINO",
        "NATIONAL_ID",
        "PASSPORT",
        "DRIVER_LICENSE",
        "IP_ADDRESS",
        "MAC_ADDRESS",
        "SECRET",
    }
)
SOFT_TYPES: frozenset[str] = frozenset({"LOCATION", "DATE_OF_BIRTH", "USERNAME", "URL"})
ALL_TYPES: frozenset[str] = HARD_TYPES | SOFT_TYPES

# What must never be stored, not even when a company's own document prints it.
TRUSTED_SOURCE_TYPES: frozenset[str] = frozenset({"SECRET", "CREDIT_CARD", "IBAN", "US_SSN", "UK_NINO", "NATIONAL_ID"})

PLACEHOLDER = re.compile(r"\[(" + "|".join(sorted(ALL_TYPES)) + r")_([1-9][0-9]{0,5})\]")


def placeholder(entity_type: str, ordinal: int) -> str:
    """`[PERSON_1]`-style text that stands for an entity."""
    return f"[{entity_type}_{ordinal}]"


@dataclass(frozen=True, slots=True)
class Finding:
    """A stretch [start, end) of a text that a recogniser takes for personal data.

    `score` is 0..1; `context_word` is the word or cue that raised it. `private` marks what people
    say about themselves ("my name is ..."): such a value is masked even where a trusted document
    prints the same words.
    """

    start: int
    end: int
    entity_type: str
    score: float
    recognizer: str
    context_word: str | None = None
    private: bool = False
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class MaskedSpan:
    """A placeholder's place: [start, end) in the masked text, which stood at
    [original_start, original_end) in the text as given. `recognizer` is "existing" for a
    placeholder that was there already."""

    start: int
    end: int
    entity_type: str
    ordinal: int
    score: float
    recognizer: str
    context_word: str | None
    original_start: int
    original_end: int
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class MaskedText:
    """A scrubbed text and its placeholders in reading order."""

    text: str
    spans: tuple[MaskedSpan, ...] = ()

"""National identity, tax and health numbers of the countries whose telephone numbers are known too.

Formats and check digits are python-stdnum's. A format of letters and digits with a check stands by itself; bare digits
pass a check digit by chance too often, so they need a word about them nearby.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import regex
from stdnum.au import tfn
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.ie import pps
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.nl import bsn

from privacy.features import Features
from privacy.scanning import Hit, ScanRecognizer, bounded
from privacy.wordlists import words

_CONTEXT = words(
    "nhs national identity id pps ppsn steuer steueridnr idnr identifikationsnummer tin tax insee nir sécu sécurité"
    " sociale sociaal dni nif nie codice fiscale cf bsn burgerservicenummer sofinummer aadhaar aadhar uidai pan tfn"
    " medicare ihi"
)


# Letters before and behind a Spanish or an Irish number, with what must not follow them; "2A" in a French one.
_BESIDE = 6
_FEWEST_DIGITS = 7
_GAP = 3
_MARKS = " -./ABab"


class _Rule(NamedTuple):
    name: str
    pattern: regex.Pattern[str]
    valid: Callable[[str], bool]
    score: float
    digits: int  # for rules of one word: characters
    letters: bool
    one_word: bool = False
    run: int = 1  # digits that stand together in it
    telling: bool = False  # of a form that little else has


_FISCAL = r"[A-Z]{6}[\dLMNP-V]{2}[ABCDEHLMPRST][\dLMNP-V]{2}[A-Z][\dLMNP-V]{3}[A-Z]"
_NIR = r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}"


def _alone(pattern: str) -> regex.Pattern[str]:
    return regex.compile(rf"(?<![\w.\-])(?:{pattern})(?![\w\-]|\.\d)", regex.I)


def _medicare(number: str) -> bool:
    digits = [int(char) for char in number if char.isdigit()]
    weighted = sum(digit * weight for digit, weight in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9), strict=False))
    return weighted % 10 == digits[8]


_RULES = (
    _Rule("Spanish DNI", _alone(r"\d{8}[ \-]?[A-HJ-NP-TV-Z]"), dni.is_valid, 0.6, 8, True, run=8),
    _Rule("Spanish NIE", _alone(r"[XYZ][ \-]?\d{7}[ \-]?[A-HJ-NP-TV-Z]"), nie.is_valid, 0.7, 7, True, run=7),
    _Rule("Irish PPS", _alone(r"\d{7}[ ]?[A-W][A-IW]?"), pps.is_valid, 0.55, 7, True, run=7),
    _Rule("Indian PAN", _alone(r"[A-Z]{3}[PCHABGJLFT][A-Z]\d{4}[A-Z]"), pan.is_valid, 0.6, 10, True, one_word=True),
    _Rule(
        "Italian codice fiscale", _alone(_FISCAL), codicefiscale.is_valid, 0.9, 16, True, one_word=True, telling=True
    ),
    _Rule("French NIR", _alone(_NIR), nir.is_valid, 0.6, 13, False, telling=True),
    _Rule("German tax number", _alone(r"[1-9]\d ?\d{3} ?\d{3} ?\d{3}"), idnr.is_valid, 0.3, 11, False),
    _Rule("Dutch BSN", _alone(r"\d{9}|\d{4}[. ]\d{2}[. ]\d{3}|\d{3}[. ]\d{3}[. ]\d{3}"), bsn.is_valid, 0.2, 9, False),
    _Rule("UK NHS", _alone(r"\d{3}[ \-]?\d{3}[ \-]?\d{4}"), nhs.is_valid, 0.3, 10, False),
    _Rule("Indian Aadhaar", _alone(r"[2-9]\d{3}[ \-]?\d{4}[ \-]?\d{4}"), aadhaar.is_valid, 0.3, 12, False),
    _Rule("Australian TFN", _alone(r"\d{3}[ \-]?\d{3}[ \-]?\d{3}"), tfn.is_valid, 0.2, 9, False),
    _Rule("Australian Medicare", _alone(r"[2-6]\d{3}[ \-]?\d{5}[ \-]?\d(?:[ \-/]?\d)?"), _medicare, 0.3, 10, False),
)


class NationalScan(ScanRecognizer):
    """Identity, tax and health numbers with valid check digits."""

    def __init__(self) -> None:
        super().__init__("NATIONAL_ID", context=_CONTEXT, gate=lambda features: features.longest_chain >= 4)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits; bare digits score 0.3 or less and need a context word."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`; formats that the text's digits rule out are not searched for."""
        mixed = features.letters_and_digits or "x" in features.lower
        united: list[tuple[int, int]] | None = None
        for rule in _RULES:
            if features.longest_run < rule.run:
                continue
            if (rule.letters and not mixed) or (not rule.one_word and features.longest_chain < rule.digits):
                continue
            if rule.one_word:
                stretches = features.digit_words
            else:
                united = _groups(features) if united is None else united
                stretches = united
            for start, end in stretches:
                if end - start < rule.digits:
                    continue
                for match in bounded(rule.pattern, features.text, start, end):
                    if rule.valid(match.group()):
                        yield Hit(*match.span(), rule.score, rule.name)
                    elif rule.telling and not match.group().isdigit():
                        yield Hit(*match.span(), 0.2, "no check digit")  # mistyped, it is still nearly the number


def _groups(features: Features) -> list[tuple[int, int]]:
    """Stretches with seven digits or more, whose groups have one of the marks between them that numbers are written
    with, and what may stand right before and behind such a number."""
    text = features.text
    found: list[tuple[int, int]] = []
    first = last = digits = 0
    for start, end in (*features.runs, (len(text) + _BESIDE, 0)):
        if digits and start - last <= _GAP and not text[last:start].strip(_MARKS):
            digits += end - start
        else:
            if digits >= _FEWEST_DIGITS:
                found.append((max(0, first - _BESIDE), min(len(text), last + _BESIDE)))
            first, digits = start, end - start
        last = end
    return found

"""Telephone numbers: one scan for candidates, then the shape and `phonenumbers` decide.

Presidio searches the text once per region; here a text is searched once and only a candidate that
its shape does not decide is checked against the regions' number plans.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import phonenumbers
import regex
from phonenumbers import PhoneMetadata

from privacy.scanning import Hit, ScanRecognizer, bounded
from privacy.wordlists import words

CONTEXT = words(
    "phone phones telephone tel mobile cell cellphone fax contact whatsapp call calling called ring rang text sms"
    " dial reach answering landline handset hotline callback ph mob telefon handy mobil mobilnummer handynummer"
    " telefonnummer telefoon telefoonnummer gsm téléphone tél telephone teléfono móvil movil telefono cellulare"
    " celular telemóvel puh puhelin telefonum telefonu"
)

_CANDIDATE = regex.compile(
    r"(?<![\w@#])(?<!\d[/.,:])(?<!\w-)(?:\+|\(\+|\()?\d(?:[ \t\u00a0().\-/]{0,3}\d){6,14}+"
    r"(?P<extension>\s?(?:x|ext\.?|extension)\s?\d{1,6})?(?![\w@%€$£]|[.,:]\d)",
    regex.IGNORECASE,
)
_GROUPS = regex.compile(r"\d+")
_PLAIN = re.compile(r"[0-9 \u00a0\t().\-/]+")
_ASCII_DIGIT = re.compile(r"[0-9]+")
_FEWEST_DIGITS = 8
_FEWEST_WITH_NOUGHTS = 11
# The same mark twice: "0221 / 47 11" is none.
_DATE = re.compile(r"\(?\d+(?:(?P<mark>[\-/.] ?)\d+(?P=mark)\d|\d* [\-/.] \d+ [\-/.] \d)")
_DOI = re.compile(r"10\.\d{4,9}/")
_DATE_SHAPES = {(4, 2, 2), (2, 2, 4), (1, 2, 4), (2, 1, 4), (4, 1, 2), (4, 2, 1), (1, 1, 4)}


class PhoneScan(ScanRecognizer):
    """Telephone numbers in international form and in the national forms of `regions`."""

    def __init__(self, regions: Sequence[str]) -> None:
        # A number needs only one plan that it fits, so those that many numbers fit are asked first.
        self._regions = sorted(regions, key=lambda region: -len(_plan(region).lengths))
        super().__init__("PHONE", context=CONTEXT, gate=lambda features: features.seven_digits)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits; weak shapes score 0.3 and need a context word."""
        for match in bounded(_CANDIDATE, text):
            value = match.group()
            number = value[: len(value) - len(match.group("extension") or "")]
            score, rule = self._judge(number)
            if score:
                yield Hit(*match.span(), score, rule)

    def _judge(self, number: str) -> tuple[float, str]:
        groups = tuple(len(group) for group in _GROUPS.findall(number))
        digits = sum(groups)
        international = number.lstrip("(").startswith(("+", "00"))
        if international:
            # A plus says what is meant; two noughts may begin the number of a meter.
            enough = digits >= (_FEWEST_DIGITS if "+" in number else _FEWEST_WITH_NOUGHTS)
            return (0.75, "international") if enough else (0.3, "short international")
        if _is_something_else(number, groups):
            return 0.0, ""
        if groups[-3:] == (3, 3, 4) and groups[:-3] in {(), (1,)}:
            return 0.65, "3-3-4"
        national = number.lstrip("(").startswith("0") or _well_grouped(groups)
        if digits >= 9 and national and any(_is_valid(number, r) for r in self._regions):
            return 0.65, "national plan"
        return 0.3, "shape only"


def _well_grouped(groups: tuple[int, ...]) -> bool:
    return len(groups) >= 3 and min(groups) >= 2


def _is_something_else(number: str, groups: tuple[int, ...]) -> bool:
    """Dates, times, IP addresses, decimals, card and social security numbers."""
    separators = {char for char in number if not char.isdigit()} - set("()")
    if groups[:3] in _DATE_SHAPES and _DATE.match(number):
        return True
    if _DOI.match(number):
        return True
    if groups == (3, 2, 4) and "-" in separators:
        return True
    if groups == (4, 4, 4, 4) or (separators == {"."} and (len(groups) < 3 or min(groups) < 2)):
        return True
    return separators <= {"."} and len(groups) == 4 and max(groups) <= 3


@dataclass(frozen=True)
class _Plan:
    """What the numbers of a region are made of before one is parsed, which takes a hundred times as long."""

    lengths: frozenset[int]
    general: re.Pattern[str] | None
    prefix: re.Pattern[str] | None
    abroad: re.Pattern[str] | None

    def excludes(self, digits: str) -> bool:
        """Neither the digits nor what stands behind the national prefix can be a number of the region."""
        if self.general is None or self.abroad is None or self.abroad.match(digits) or self.general.fullmatch(digits):
            return False
        prefix = self.prefix.match(digits) if self.prefix is not None else None
        return prefix is None or self.general.fullmatch(digits, prefix.end()) is None


@lru_cache(maxsize=64)
def _plan(region: str) -> _Plan:
    metadata = PhoneMetadata.metadata_for_region(region)
    general = metadata.general_desc if metadata is not None else None
    pattern = general.national_number_pattern if general is not None else None
    if metadata is None or general is None or pattern is None or metadata.national_prefix_transform_rule:
        return _Plan(frozenset(), None, None, None)
    prefix = metadata.national_prefix_for_parsing
    return _Plan(
        frozenset(general.possible_length),
        re.compile(pattern),
        re.compile(prefix) if prefix else None,
        re.compile(f"{metadata.international_prefix or ''}|{metadata.country_code}"),
    )


def _is_valid(number: str, region: str) -> bool:
    if _PLAIN.fullmatch(number) and _plan(region).excludes("".join(_ASCII_DIGIT.findall(number))):
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False

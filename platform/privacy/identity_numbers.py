"""Payment cards, bank accounts, national identity numbers and dates of birth."""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

from privacy.features import Features
from privacy.presidio import predefined_recognizers
from privacy.scanning import FailClosed, Hit, PatternScan, ScanRecognizer, bounded
from privacy.wordlists import words

# Any dash, and a dot or a slash where the same one stands between all groups of four.
_CARD = regex.compile(
    r"(?<![\d.\w])(?:\d(?:[ \-\u2010-\u2015\u2212]{0,2}\d){11,18}|\d{4}([./_])\d{4}\1\d{4}\1\d{1,7})(?![\d\w]|\.\d)"
)
_CARD_CONTEXT = words("card credit debit visa mastercard amex maestro discover jcb diners cc pan")
# Issuer ranges with the lengths they are issued in; other Luhn-valid numbers need a context word.
_ISSUER = regex.compile(
    r"4\d{12}(?:\d{3})?(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12,15}|(?:2131|1800)\d{11}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|62\d{14,17}|(?:5[06-8]|6\d)\d{11,17}"
)
_FOUR_BY_FOUR = regex.compile(r"\d{4}([ \-])\d{4}\1\d{4}\1\d{4}")
_FEW_DIGITS = 3
_IBAN = regex.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?:[ \-.]{0,2}[A-Z0-9]){11,30}(?![A-Z0-9])", regex.I)
_IBAN_MIN = 15

_SSN = regex.compile(r"(?<![\d\-])(?!000|666)\d{3}(?P<sep>[\- ])(?!00)\d{2}(?P=sep)(?!0000)\d{4}(?![\d\-])")
_SSN_PLAIN = regex.compile(r"(?<![\d.\-])(?!000|666)\d{9}(?![\d.\-])")
_UK_LICENCE = regex.compile(r"\b[A-Z9]{5}\d{6}[A-Z9]{2}\d[A-Z]{2}\b", regex.I)
_UK_LICENCE_CHARS = 16
_SORT_CODE = regex.compile(r"(?<![\d\-])\d{2}([\- ])\d{2}\1\d{2}(?![\d\-])")

# The first letters of a month in English, German, French, Spanish, Italian and Dutch.
_MONTH = (
    r"\b(?:jan|gen|ene|feb|fev|f[ée]v|mar|m[äa]r|maa|apr|abr|avr|may|mai|mag|mei|jun|jui|giu|jul|lug|aug|ago|ao[uû]|sep|set"
    r"|oct|okt|ott|out|nov|dec|dez|dic|d[ée]c)\p{L}{0,8}\.?"
)
_DATE_FORM = (
    r"(?<![\d.\-/])(?:\d{4}[\-/.]\d{1,2}[\-/.]\d{1,2}|\d{1,2}[\-/. ]{1,2}\d{1,2}[\-/. ]{1,2}(?:\d{4}|\d{2})"
    rf"|\d{{1,2}}(?:st|nd|rd|th|er|\.)?(?: of| de)?[ \-]{_MONTH},?(?: of| de)?(?:[ \-]\d{{2,4}})?"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?|{_MONTH},?(?: of| de)? (?:19|20)\d{{2}})(?![\d\-/])"
)
_DATE = regex.compile(_DATE_FORM, regex.I)
_DATE_CUE = regex.compile(rf"(?<!\w)d[./]?\s?o[./]?\s?b\b\.?\s?(?:is|was|[:=])?\s?(?P<value>{_DATE_FORM})", regex.I)
_SSN_DIGITS = 9
_WORD_END = re.compile(r"\w")
_BIRTH_STEMS = ("born", "birth", "dob", "geb", "né", "naiss", "nacid", "nacim", "nato", "nata", "nasc")


class CardScan(ScanRecognizer):
    """Payment card numbers of 12 to 19 digits with a valid Luhn digit (ISO/IEC 7812-1), and, beside a word about cards,
    four groups of four with a wrong one."""

    def __init__(self) -> None:
        super().__init__("CREDIT_CARD", context=_CARD_CONTEXT, gate=lambda features: features.longest_chain >= 12)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits: 1.0 in an issuer's range, 0.3 otherwise, 0.2 where only the groups are those of a card."""
        for match in bounded(_CARD, text):
            digits = "".join(char for char in match.group() if char.isdigit())
            if len(set(digits)) > 1 and luhn_valid(digits):
                known = _ISSUER.fullmatch(digits) is not None and len(digits) > 12
                yield Hit(*match.span(), 1.0 if known else 0.3, "issuer" if known else "Luhn only")
            elif _FOUR_BY_FOUR.fullmatch(match.group()) and len(set(digits)) > _FEW_DIGITS:
                yield Hit(*match.span(), 0.2, "no check digit")  # mistyped, it is still nearly the card


def luhn_valid(digits: str) -> bool:
    """Whether a string of decimal digits ends in its Luhn check digit."""
    total = 0
    for position, char in enumerate(reversed(digits)):
        value = int(char) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


class IbanScan(ScanRecognizer):
    """International bank account numbers with valid check digits (ISO 13616, modulo 97)."""

    def __init__(self) -> None:
        super().__init__("IBAN", gate=lambda features: features.country_and_check)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits: the longest valid prefix of each candidate, since words may follow a number."""
        for match in bounded(_IBAN, text):
            length = _valid_iban_length(match.group())
            if length:
                yield Hit(match.start(), match.start() + length, 1.0, "check digits")


def _valid_iban_length(candidate: str) -> int:
    for end in range(len(candidate), 0, -1):
        compact = candidate[:end].replace(" ", "").replace("-", "").replace(".", "").upper()
        if len(compact) < _IBAN_MIN:
            return 0
        whole_word = end == len(candidate) or not candidate[end].isalnum()
        if whole_word and candidate[end - 1].isalnum() and _iban_remainder(compact) == 1:
            return end
    return 0


def _iban_remainder(compact: str) -> int:
    digits = "".join(str(int(char, 36)) for char in compact[4:] + compact[:4] if char.isascii())
    return int(digits) % 97


class LicenceScan(FailClosed, predefined_recognizers.UsLicenseRecognizer):
    """US driving licence numbers: weak patterns that need a context word."""

    CONTEXT = [*predefined_recognizers.UsLicenseRecognizer.CONTEXT, "licence", "licences", "dvla", "driver's"]
    gate = staticmethod(lambda features: features.digit and features.any_of(("lic", "driv", "permit", "dls")))
    stretches = staticmethod(lambda features: features.digit_words)


class PassportScan(FailClosed, predefined_recognizers.UsPassportRecognizer):
    """Passport numbers of nine characters after the word passport."""

    CONTEXT = ["passport", "passport#", "passports"]
    gate = staticmethod(lambda features: features.digit and "passport" in features.lower)


class BankAccountScan(FailClosed, predefined_recognizers.UsBankRecognizer):
    """Account numbers of 8 to 17 digits after a word about accounts."""

    CONTEXT = ["account", "account#", "acct", "acc", "bank", "banking", "iban", "debit"]
    gate = staticmethod(lambda features: features.seven_digits and features.any_of(("acc", "bank", "debit")))


class NinoScan(FailClosed, predefined_recognizers.UkNinoRecognizer):
    """UK national insurance numbers."""

    gate = staticmethod(lambda features: features.longest_chain >= 6)
    stretches = staticmethod(lambda features: list(_behind_two_letters(features)))


def _behind_two_letters(features: Features) -> Iterator[tuple[int, int]]:
    """Stretches with two digits, or six, behind a word of two letters, as an insurance number begins."""
    text = features.text
    for start, end in features.runs:
        if end - start not in {2, 6}:
            continue
        letters = start - 3 if text[start - 1 : start] == " " else start - 2
        if letters >= 0 and text[letters : letters + 2].isalpha() and not _WORD_END.match(text, letters - 1, letters):
            yield max(0, start - 4), min(len(text), start + 12)


def _like_ssn(features: Features) -> bool:
    """Nine digits stand together, or three, two and four with one character between them."""
    runs = features.runs
    return any(end - start == _SSN_DIGITS for start, end in runs) or any(
        second_end - second == 2 and second - end == 1 and third - second_end == 1 and end - start == 3
        for (start, end), (second, second_end), (third, _) in zip(runs, runs[1:], runs[2:], strict=False)
    )


def _before_letter(features: Features) -> bool:
    """A letter stands right behind six digits or more."""
    text = features.text
    return any(end - start >= 6 and text[end : end + 1].isalpha() for start, end in features.runs)


def identity_recognizers() -> list[ScanRecognizer | FailClosed]:
    """New recognisers for cards, accounts, national identity numbers and dates of birth."""
    return [
        CardScan(),
        IbanScan(),
        BankAccountScan(supported_entity="BANK_ACCOUNT"),
        PatternScan(
            "BANK_ACCOUNT",
            [("sort code", _SORT_CODE, 0.1)],
            context=("sort", "sortcode"),
            gate=lambda features: "sort" in features.lower and features.digit,
        ),
        PatternScan(
            "US_SSN",
            [("grouped", _SSN, 0.5), ("nine digits", _SSN_PLAIN, 0.05)],
            context=("ssn", "ssns", "social", "security", "ssn#"),
            gate=_like_ssn,
        ),
        NinoScan(supported_entity="UK_NINO"),
        PassportScan(supported_entity="PASSPORT"),
        LicenceScan(supported_entity="DRIVER_LICENSE"),
        PatternScan(
            "DRIVER_LICENSE",
            [("UK licence", _UK_LICENCE, 0.6)],
            gate=lambda f: _before_letter(f) and any(end - start == _UK_LICENCE_CHARS for start, end in f.digit_words),
        ),
        PatternScan(
            "DATE_OF_BIRTH",
            [("date", _DATE, 0.2)],
            context=words(
                "born birth birthday birthdate dob geboren geb geburtsdatum geburtstag né née naissance nacido nacida"
                " nacimiento nato nata nascita geboortedatum"
            ),
            gate=lambda features: features.digit and features.any_of(_BIRTH_STEMS),
        ),
        PatternScan(
            "DATE_OF_BIRTH",
            [("date after d.o.b.", _DATE_CUE, 0.65)],
            gate=lambda features: features.digit and features.any_of(("o.b", "/o/b", "dob")),
        ),
    ]

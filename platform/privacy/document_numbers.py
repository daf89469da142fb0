"""Numbers of documents of any country beside a word for the document, machine-readable lines, and wallets."""

from __future__ import annotations

import regex

from privacy.features import Features
from privacy.presidio import predefined_recognizers
from privacy.scanning import FailClosed, PatternScan, ScanRecognizer
from privacy.wordlists import words

_PASSPORT_WORDS = words(
    "passport passports passport# reisepass reisepassnummer passnummer passeport pasaporte passaporto paspoort"
    " paspoortnummer passaporte paszport pass-nr"
)
_CARD_WORDS = words(
    "ausweis ausweisnummer personalausweis personalausweisnummer identité d'identité d’identité cni identidad identità"
    " d'identità d’identità identiteitskaart identiteitskaartnummer dowód dowodu"
)
_PERSON_WORDS = words(
    "personnummer personnr fødselsnummer fodselsnummer cpr cpr-nr cpr-nummer hetu hetuni henkilötunnus"
    " henkilötunnukseni pesel rodné rodne kimlik tckn nif"
)
_NUMBER = regex.compile(r"(?<![\w\-])[A-Z0-9]{7,12}(?![\w\-])")
# Of a date and some signs more, or of nine to twelve digits: northern, Polish, Czech, Turkish, Portuguese.
_PERSON_NUMBER = regex.compile(
    r"(?<![\w\-])(?:\d{6}(?:\d{2})?[\-+A/ ]?\d{3,4}[A-Z]?|\d{9,12}|\d{3} \d{3} \d{3})(?![\w\-])"
)
_NINO = regex.compile(r"(?<!\w)[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)", regex.IGNORECASE)
# ICAO 9303: lines of 30, 36 or 44, some lost or added in scanning.
_MACHINE_LINE = regex.compile(r"(?<![A-Z0-9<])(?=[A-Z0-9]{0,44}<)[A-Z0-9<]{28,46}(?![A-Z0-9<])")
_PASSPORTS = ("passp", "passnummer", "pass-nr", "reisepass", "passap", "paszport", "pasaporte", "paspoort")
_PERSON_STEMS = ("person", "cpr", "hetu", "henkil", "pesel", "rodn", "kimlik", "tckn", "nif", "fødsels", "fodsels")
_FEWEST_SIGNS = 8
_FEWEST_DIGITS = 4
_ETHER = regex.compile(r"(?<!\w)0x[0-9A-Fa-f]{40}(?!\w)")
_WALLET_CHARS = 26


def _document_number(value: str) -> bool:
    return sum(map(str.isdigit, value)) >= _FEWEST_DIGITS


def _machine_line(value: str) -> bool:
    return value.count("<") > 1 and sum(map(str.isalnum, value)) >= _FEWEST_SIGNS


def _wallet_words(features: Features) -> list[tuple[int, int]]:
    text = features.text
    return [(s, e) for s, e in features.long_words if e - s >= _WALLET_CHARS and "/" not in text[s:e]]


class WalletScan(FailClosed, predefined_recognizers.CryptoRecognizer):
    """Presidio's Bitcoin addresses with valid check digits, as accounts."""

    gate = staticmethod(lambda features: features.digit and bool(_wallet_words(features)))
    stretches = staticmethod(_wallet_words)


def document_recognizers() -> list[ScanRecognizer | FailClosed]:
    """New recognisers for PASSPORT, NATIONAL_ID, UK_NINO and BANK_ACCOUNT."""
    return [
        PatternScan(
            "PASSPORT",
            [("beside a word", _NUMBER, 0.1)],
            context=_PASSPORT_WORDS,
            gate=lambda f: f.digit and f.any_of(_PASSPORTS),
            check=_document_number,
        ),
        PatternScan(
            "PASSPORT",
            [("machine-readable line", _MACHINE_LINE, 0.9)],
            gate=lambda f: "<" in f.text and f.text.count("<") > 1,
            check=_machine_line,
        ),
        PatternScan(
            "NATIONAL_ID",
            [("beside a word", _NUMBER, 0.2)],
            context=_CARD_WORDS,
            gate=lambda f: f.digit and f.any_of(("ausweis", "identi", "cni", "dowód", "dowodu")),
            check=_document_number,
        ),
        PatternScan(
            "NATIONAL_ID",
            [("of a person, beside a word", _PERSON_NUMBER, 0.2)],
            context=_PERSON_WORDS,
            gate=lambda f: f.longest_run >= 3 and f.longest_chain >= 9 and f.any_of(_PERSON_STEMS),
        ),
        PatternScan(
            "UK_NINO",
            [("beside a word", _NINO, 0.2)],
            context=("ni", "nino", "insurance"),
            gate=lambda f: (
                f.longest_chain >= 6 and f.any_of((" ni ", "ni number", "ni no", "ni:", "nino", "insurance"))
            ),
        ),
        WalletScan(supported_entity="BANK_ACCOUNT"),
        PatternScan("BANK_ACCOUNT", [("wallet", _ETHER, 0.6)], gate=lambda f: "0x" in f.text),
    ]

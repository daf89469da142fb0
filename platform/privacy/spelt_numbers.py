"""Telephone numbers in words, as they are dictated, and with letters for digits, as they are typed or scanned."""

from __future__ import annotations

from collections.abc import Iterator

import regex

from privacy.features import Features
from privacy.scanning import Hit, ScanRecognizer, bounded
from privacy.telephone import CONTEXT
from privacy.wordlists import words

# English, German, French, Spanish, Italian, Dutch, Portuguese, Polish: 0 to 9, each written in every way.
_DIGITS = (
    words("zero oh o nought naught null zéro cero nul"),
    words("one eins un une uno een één um jeden"),
    words("two zwei zwo deux dos due twee dois dwa"),
    words("three drei trois tres tre drie três trzy"),
    words("four vier quatre cuatro quattro quatro cztery"),
    words("five fünf fuenf cinq cinco cinque vijf pięć"),
    words("six sechs seis sei zes sześć"),
    words("seven sieben sept siete sette zeven sete siedem"),
    words("eight acht huit ocho otto oito osiem"),
    words("nine neun neuf nueve nove negen dziewięć"),
)
_VALUE = {word: str(digit) for digit, written in enumerate(_DIGITS) for word in written}
# French numbers are said in pairs: "trente-neuf". How many digits that makes is near enough for what is asked of them.
_TENS = dict(
    zip(words("dix vingt trente quarante cinquante soixante septante huitante nonante"), "123456789", strict=True)
)
_TEENS = dict(zip(words("onze douze treize quatorze quinze seize"), words("11 12 13 14 15 16"), strict=True))
_VALUE |= _TENS | _TEENS | {"vingts": "2"}
_TIMES = {"double": 2, "doppel": 2, "triple": 3, "treble": 3}
_ZEROS = {"hundred": "00", "hundert": "00", "thousand": "000"}
_KNOWN = frozenset(_VALUE) | frozenset(_TIMES)
_UNIT = rf"(?:(?:{'|'.join(sorted({*_VALUE, *_TIMES, *_ZEROS, 'et'}, key=len, reverse=True))}|\d{{1,5}})(?!\w))"
_SPELT = regex.compile(
    rf"(?<![\w'’\-])(?:\+ ?|plus )?{_UNIT}(?:[ ,.\-–/]{{1,3}}{_UNIT}){{4,24}}+(?![\w'’])", regex.IGNORECASE
)
_PART = regex.compile(r"\w+")
_FEWEST_WORDS = 5
_FEWEST_DIGITS = 7
_SURE_DIGITS = 9
_MOST_DIGITS = 16

_LETTERED = regex.compile(r"(?<![\w@.\-/])\+?[\doOlI](?:[ ()\-./]{0,2}[\doOlI]){8,15}+(?![\w@])")
_AS_DIGIT = str.maketrans("oOlI", "0011")
_FEWEST_REAL = 6
_LIKE_DIGITS = frozenset("oOlI")
_FEWEST_DIFFERENT = 3
_TELLING = frozenset(
    words(
        "oh seven eight nine null sieben acht neun sept huit neuf cero siete ocho sette otto zeven negen zéro sete oito"
        " siedem osiem"
    )
)


class SpeltPhoneScan(ScanRecognizer):
    """Numbers of seven digits or more of which five at least are words; letters in the place of digits."""

    def __init__(self) -> None:
        super().__init__("PHONE", context=CONTEXT)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits: .55 from nine digits on, else .3; with letters in it .2: those need a word about telephones."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`."""
        text = features.text
        if _spoken(features):
            for match in bounded(_SPELT, text):
                digits = _digits(match.group())
                if _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS and not _counted(digits):
                    yield Hit(*match.span(), 0.55 if len(digits) >= _SURE_DIGITS else 0.3, "in words")
        if _lettered(features):
            for match in bounded(_LETTERED, text):
                if _mistaken(match.group()):
                    yield Hit(*match.span(), 0.2, "letters for digits")


def _spoken(features: Features) -> bool:
    # Few texts have one of the words that numbers rarely do without, and few of those have three.
    told = not _TELLING.isdisjoint(features.words) or features.any_of(("zero", "double"))
    return told and len(_KNOWN & features.spoken) >= _FEWEST_DIFFERENT


def _lettered(features: Features) -> bool:
    text = features.text
    return features.longest_run < _SURE_DIGITS and any(
        text[start - 1 : start] in _LIKE_DIGITS or text[end : end + 1] in _LIKE_DIGITS for start, end in features.runs
    )


def _digits(value: str) -> str:
    """The digits that are said; "" where fewer than _FEWEST_WORDS are words."""
    found, times, spoken = "", 1, 0
    for part in _PART.findall(value.lower()):
        if part in _TIMES:
            times = _TIMES[part]
            continue
        if part == "et":
            continue
        spoken += part in _VALUE
        found += _VALUE[part] * times if part in _VALUE else _ZEROS.get(part, part)
        times = 1
    return found if spoken >= _FEWEST_WORDS else ""


def _counted(digits: str) -> bool:
    """Whether somebody counts: "one, two, three …", or says the same digit again and again."""
    return len(set(digits)) == 1 or digits in "01234567890123456789" or digits in "98765432109876543210"


def _mistaken(value: str) -> bool:
    """Whether digits are among the letters of every group, and enough of them."""
    groups = regex.findall(r"\w+", value)
    letters = sum(char.isalpha() for char in value)
    mixed = letters and all(any(map(str.isdigit, group)) for group in groups)
    return bool(mixed) and sum(map(str.isdigit, value)) >= _FEWEST_REAL and value.translate(_AS_DIGIT) != value

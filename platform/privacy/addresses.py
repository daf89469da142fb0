"""Street addresses by pattern: number and street word, European forms, postcodes, boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import regex

from privacy import address_places
from privacy.features import Features, Gate
from privacy.gazetteer import FUNCTION_WORDS, fold, gazetteer
from privacy.scanning import Hit, ScanRecognizer, bounded
from privacy.wordlists import words

_CAP = r"(?:\p{Lu}[\p{L}\p{M}'’.\-]*|\d{1,3}(?:st|nd|rd|th))"
_NUMBER = r"\d{1,6}[A-Za-z]?(?:\s?[\-/]\s?\d{1,5}[A-Za-z]?)?"
_STREET = (
    r"(?:Street|Str|St|Road|Rd|Avenue|Ave|Av|Lane|Ln|Drive|Dr|Close|Court|Ct|Crescent|Cres|Gardens"
    r"|Gdns|Grove|Way|Place|Pl|Terrace|Square|Sq|Hill|Park|Row|Mews|Walk|Boulevard|Blvd|Highway|Hwy"
    r"|Parkway|Pkwy|Circle|Cir|Loop|Trail|Green|Rise|View|Vale|Wharf|Quay|Parade|Promenade|Esplanade"
    r"|Broadway|Embankment|Alley|Turnpike|Pike|Squares|Plaza|Bypass|Yard)"
)
_SUFFIX = (
    r"(?:stra(?:ß|ss)e|str\.?|gasse|allee|platz|weg|ring|damm|ufer|laan|straat|plein|gracht|kade|dijk"
    r"|singel|gatan|gata|v[äa]gen|v[äa]g|gr[äa]nd|gade|vej|veien|vegen|all[eé]|katu|tie|kuja|polku"
    r"|utca|út|tér|útja|u\.|iela|gatv[eė]|ulic[ae]|n[áa]m[eě]st[ií]|stræti|vegur|cesta)"
)
_PREFIX = (
    r"(?:[Rr]ue|[Aa]venue|[Aa]v\.|[Bb]oulevard|[Bb]d|[Pp]lace|[Cc]hemin|[Aa]llée|[Ii]mpasse|[Qq]uai"
    r"|[Cc]hauss[ée]e|[Rr]oute|[Cc]ours|[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]orso|[Vv]icolo|[Ll]argo"
    r"|[Ss]trada|[Cc]alle|[Aa]venida|[Aa]vda\.?|[Pp]laza|[Pp]aseo|[Cc]arrera|[Cc]amino|[Rr]onda"
    r"|[Cc]arrer|[Rr]ua|[Tt]ravessa|[Pp]raça|[Uu]l\.|[Uu]lica|[Aa]l\.|[Oo]s\.|[Pp]l\.|[Jj]alan)"
)
_JOIN = r"(?:de|du|des|del|della|dei|di|da|do|dos|das|la|le|les|el|los|las|van|von|der|den|l['’]|d['’])"

_ENGLISH = regex.compile(rf"(?<![\w.])(?:{_NUMBER}),?\s(?:{_CAP}\s){{1,4}}?{_STREET}\b\.?(?:\s\d{{1,4}}\b)?")
_LOWER = regex.compile(
    r"(?<![\w.])\d{1,5}[a-z]?,? (?P<words>(?:[\p{L}'’\-]{2,20} ){1,3})"
    r"(?:street|road|rd|avenue|ave|lane|crescent|boulevard|terrace|mews|gardens|drive|grove|close)\b",
    regex.I,
)
_AFTER = regex.compile(
    rf"(?<![\w.])(?:\d{{2,6}}\s)?{_CAP}(?:[ ]{_CAP}){{0,3}}?(?:[ ]?(?i:{_SUFFIX})|[ ]{_STREET})"
    r"[ ]\d{1,5}\s?[A-Za-z]?\b(?![.,:]\d)"
)
_BEFORE = regex.compile(
    rf"(?<![\w.])(?:\d{{1,6}}(?:\s?bis)?,?\s)?{_PREFIX}\s(?:{_JOIN}\s?){{0,3}}{_CAP}"
    rf"(?:\s(?:{_JOIN}\s?){{0,2}}{_CAP}){{0,3}}(?:,?\s(?:n[°ºr.]\s?)?\d{{1,5}}[A-Za-z]?\b)?"
)
_BEFORE_LOWER = regex.compile(
    r"(?<![\w.])(?P<words>\d{1,6},? (?:rue|avenida|calle|via|viale|corso|rua|rúa|plaza|piazza|ulica|ul\.)"
    r"(?: \p{L}[\p{L}'’.\-]*){1,5}(?: \d{1,5})?\b)",
    regex.I,
)
_ZIP_CITY = regex.compile(
    rf"(?<![\w.]){_CAP}(?:[ ]{_CAP}){{0,2}}[ ]\d{{1,4}}\s?[A-Za-z]?,\s{{0,2}}(?:[A-Z]{{1,2}}-)?"
    rf"(?:\d{{4,5}}|\d{{3}} \d{{2}}|\d{{4}} [A-Z]{{2}}) {_CAP}"
)
_TWO_NUMBERS = regex.compile(
    rf"(?<![\w.])\d{{3,6}}[ ](?P<words>{_CAP}(?:[ ]{_CAP}){{0,2}})[ ]\d{{1,4}}(?=\s?[,\n|]|\s(?:Apt|Suite)|$)"
)
_PLACE_ZIP = regex.compile(rf"(?<![\w.])(?P<words>{_CAP})[ ](?!(?:19|20)\d\d\b)\d{{4,6}}(?![\w\-]|[.,]\d)")
_CORNER = regex.compile(
    rf"\bcorner of (?P<value>(?:{_CAP}[ ]){{1,4}}(?:\d{{1,5}}[ ])?(?:and|&)(?:[ ]{_CAP}){{1,3}})", regex.I
)
_POSTCODE_CUE = regex.compile(
    r"\b(?:zip|(?:zip|post|postal) ?code|eircode|plz)(?: is| was)?:? ?(?P<value>(?=[A-Z]{0,2}\d|[A-Z]\d)"
    r"[A-Z\d]{2,7}(?:[ \-][A-Z\d]{2,4})?)\b",
    regex.I,
)
_CANADA = regex.compile(r"(?<![\w\-])[ABCEGHJ-NPRSTVXY]\d[A-Z] ?\d[A-Z]\d(?![\w\-])")
_BOX = regex.compile(
    r"\b(?:p\.?\s?o\.?\s?box\s\w{1,10}|(?:psc|unit|cmr)\s\d{1,6},?\s?box\s\d{1,6}"
    r"|(?:us[nc]\w{1,3} \p{L}+\s{1,2})?(?:apo|fpo|dpo)\s(?:aa|ae|ap)(?:\s\d{5})?"
    r"|postfach\s\d{1,8}|bo[iî]te postale\s\d{1,6})\b",
    regex.I,
)
_UK_POSTCODE = regex.compile(
    r"(?<![\w\-])(?:GIR ?0AA|[A-PR-UWYZ](?:\d{1,2}|[A-HK-Y]\d(?:\d|[ABEHMNPRV-Y])?|\d[A-HJKPS-UW])"
    r"(?: ?\d[ABD-HJLNP-UW-Z]{2}))(?![\w\-])"
)
_UK_POSTCODE_LOWER = regex.compile(rf"(?i:{_UK_POSTCODE.pattern})")
_STATES = (
    r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]"
    r"|T[NX]|UT|V[AT]|W[AIVY])"
)
_STATE_ZIP = regex.compile(rf"(?:\b{_CAP}(?:[ ]{_CAP}){{0,2}},?\s)?\b{_STATES},?\s\d{{5}}(?:-\d{{4}})?\b")
# Irish postcodes (routing key, unique identifier) and those of countries that write them before the town.
_EIRCODE = regex.compile(r"(?<![\w\-])(?:D6W|[AC-FHKNPRTV-Y]\d{2}) ?[0-9AC-FHKNPRTV-Y]{4}(?![\w\-])")
_ZIP_PLACE = regex.compile(
    rf"(?<![\w.,/])(?!(?:19|20)\d\d )(?:\d{{4,5}}|\d{{4}} ?[A-Z]{{2}}) (?P<words>{_CAP})(?![\w\-])"
)
_INDIAN_DOOR = regex.compile(
    r"\b(?:house|h\.|flat|plot|door|shop) ?(?:no|number)\b\.? ?[:#]? ?\d{1,5}[A-Za-z]?(?:[/\-]\d{1,4})?\b"
    r"(?:, ?(?:sector|phase|block|ward|lane|cross|main|floor)[ \-]?\w{1,4}\b){0,3}",
    regex.I,
)
_DOOR = regex.compile(r"(?:Apt|Apartment|Suite|Ste|Flat)\b\.?\s?#?\d{1,5}[A-Za-z]?\b", regex.I)
_ZIP = regex.compile(r"(?<![\w\-.])\d{5}(?:-\d{4})?(?![\w\-]|\.\d)")
_CUE = regex.compile(
    r"\b(?:address (?:is|was|to|will be)|address ?:|(?:i|we|he|she|they) (?:now )?lives? at|living at"
    r"|moved? (?:to|into|from)|moving (?:to|into|from|out of)|resid(?:e|es|ing) at|deliver(?:ed)? to"
    r"|ship(?:ped)? to|sent to)\s{1,2}(?:now )?"
    r"(?P<value>(?:(?:flat|apt|unit|no\.?|number|house|room) )?\d{1,5}[a-z]?(?:,? \p{L}[\p{L}'’.\-]*){1,5})",
    regex.I,
)
_TAILS = tuple(
    regex.compile(pattern)
    for pattern in (
        r"[\s,|]{1,4}(?:(?i:apt|apartment|suite|ste|unit|flat|floor|fl|room|rm)\b\.?\s?#?\s?|#\s?)\w{1,6}",
        rf"[\s,|]{{1,4}}(?:{_CAP}[ ]?){{0,3}},?\s?{_UK_POSTCODE.pattern}",
        rf"[\s,|]{{1,4}}(?:{_CAP}[\s,]{{1,3}}){{0,3}}\d{{4,6}}(?:-\d{{3,4}})?\b(?![.,:\-]\d)",
        rf"[\s,|]{{1,4}}(?:[A-Z]-)?(?:\d{{4,6}}|\d{{3}}[ ]\d{{2}}|\d{{4}}[ ]?[A-Z]{{2}})[ ]{_CAP}",
        rf"[ ]?[,\n|]\s?(?P<city>{_CAP}(?:[ \-]{_CAP}){{0,2}})(?=\s{{0,2}}(?:[,.;\n|]|$))",
    )
)
_MAX_TAILS = 5
_STREET_STEMS = tuple(words("street road rd avenue ave lane crescent boulevard terrace mews gardens drive grove close"))
_UNITS = frozenset(
    words(
        "minutes minute hours hour days day weeks week months month years year miles mile km metres meters"
        " feet steps people times percent lane lanes cars rooms units points pages"
    )
)


_STREET_RULES: tuple[tuple[str, regex.Pattern[str], float, Gate], ...] = (
    ("box", _BOX, 0.8, lambda f: f.any_of(("box", "apo", "fpo", "dpo", "postfach", "boite", "boîte"))),
    ("state and ZIP", _STATE_ZIP, 0.65, address_places.states),
    ("street and ZIP", _ZIP_CITY, 0.7, address_places.behind_commas),
    ("Canadian postcode", _CANADA, 0.6, address_places.canadian),
    ("door", _DOOR, 0.5, address_places.doors),
    ("Indian door", _INDIAN_DOOR, 0.6, address_places.indian_doors),
)


_GUARDED_RULES: tuple[tuple[str, regex.Pattern[str], float, Gate], ...] = (
    ("lower case", _LOWER, 0.65, lambda features: features.any_of(_STREET_STEMS)),
    ("street word first, lower case", _BEFORE_LOWER, 0.65, address_places.has_prefix),
    ("between two numbers", _TWO_NUMBERS, 0.55, address_places.before_capitals),
)


class AddressScan(ScanRecognizer):
    """Street addresses with what follows them (flat, town, postcode), and postcodes alone."""

    def __init__(self) -> None:
        context = words("zip zipcode postcode postal address live living flat")
        super().__init__("ADDRESS", context=context, gate=lambda features: features.digit)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits; bare US ZIP codes score 0.2 and need a context word."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`; a rule is tried where the text has what it needs."""
        yield from self._streets(features)
        yield from self._after_cues(features)
        yield from self._postcodes(features)

    @staticmethod
    def _streets(features: Features) -> Iterator[Hit]:
        text = features.text
        for match in _matches(_ENGLISH, text, address_places.houses(features)):
            yield Hit(match.start(), _with_tail(text, match.end()), 0.8, "street")
        for start, end in address_places.behind_street_ends(features):
            for match in bounded(_AFTER, text, start, end):
                yield Hit(match.start(), _with_tail(text, match.end()), 0.7, "street, number last")
        for rule, pattern, score, needed in _STREET_RULES:
            if not needed(features):
                continue
            for match in bounded(pattern, text):
                yield Hit(match.start(), _with_tail(text, match.end()), score, rule)
        for start, end in address_places.around_prefixes(features):
            for match in bounded(_BEFORE, text, start, end):
                if any(char.isdigit() for char in match.group()):
                    yield Hit(match.start(), _with_tail(text, match.end()), 0.7, "street word first")
        yield from _guarded(features)

    @staticmethod
    def _after_cues(features: Features) -> Iterator[Hit]:
        text = features.text
        if address_places.cued(features):
            for match in bounded(_CUE, text):
                end = _until_prose(text, *match.span("value"))
                yield Hit(match.start("value"), _with_tail(text, end), 0.65, "cue", "address")
        for rule, pattern, stems in (
            ("corner", _CORNER, ("corner of",)),
            ("postcode cue", _POSTCODE_CUE, ("zip", "code", "plz")),
        ):
            if features.any_of(stems):
                for match in bounded(pattern, text):
                    yield Hit(*match.span("value"), 0.65, rule, "address")

    @staticmethod
    def _postcodes(features: Features) -> Iterator[Hit]:
        text = features.text
        for start, end in address_places.behind_places(features):
            for match in bounded(_PLACE_ZIP, text, start, end):
                if fold(match.group("words")) in gazetteer().places:
                    yield Hit(*match.span(), 0.55, "place and postcode")
        for match in _matches(_ZIP_PLACE, text, address_places.before_places(features)):
            if fold(match.group("words").rstrip(".")) in gazetteer().places:
                yield Hit(*match.span(), 0.55, "postcode and place")
        for start, end in address_places.before_two_letters(features):
            for match in bounded(_UK_POSTCODE_LOWER, text, start, end):
                upper = _UK_POSTCODE.fullmatch(match.group()) is not None
                score = 0.65 if upper or " " in match.group() else 0.3
                yield Hit(*match.span(), score, "UK postcode")
        if address_places.routed(features):
            for match in bounded(_EIRCODE, text):
                value = match.group()
                mixed = any(map(str.isdigit, value[3:])) and any(map(str.isalpha, value[3:]))
                yield Hit(*match.span(), 0.55 if mixed and value.isupper() else 0.2, "Eircode")
        for match in _matches(_ZIP, text, address_places.zips(features)):
            yield Hit(*match.span(), 0.2, "ZIP")


def _matches(pattern: regex.Pattern[str], text: str, starts: Iterable[int]) -> Iterator[regex.Match[str]]:
    """What a search would find of a pattern that can begin at these places only, given in order."""
    end = 0
    for start in starts:
        match = pattern.match(text, start) if start >= end else None
        if match is not None:
            end = match.end()
            yield match


def _guarded(features: Features) -> Iterator[Hit]:
    """What may be a street or prose, by its words."""
    starts = address_places.houses_before_letters(features)
    if not starts:
        return
    text = features.text
    for rule, pattern, score, needed in _GUARDED_RULES:
        if needed(features):
            for match in _matches(pattern, text, starts):
                if not _prose(match.group("words"), unknown_only=pattern is _TWO_NUMBERS):
                    yield Hit(match.start(), _with_tail(text, match.end()), score, rule)


def _prose(words: str, *, unknown_only: bool = False) -> bool:
    """Whether "3 <words> road" is a sentence: grammar words or units before the street word.

    With `unknown_only` any everyday word makes it one.
    """
    folded = fold(words).split()
    if folded[0] in _UNITS or any(word in FUNCTION_WORDS for word in folded):
        return True
    return unknown_only and any(gazetteer().is_common(word) for word in folded)


def _until_prose(text: str, start: int, end: int) -> int:
    """End of an address of free words: where the next grammar word begins."""
    last = start
    for number, match in enumerate(regex.finditer(r"[\w'’.\-]+", text[start:end])):
        if number and match.group().lower() in FUNCTION_WORDS | _UNITS:
            break
        last = start + match.end()
    return last


def _with_tail(text: str, end: int) -> int:
    """End of an address with its further parts: flat, town, postcode."""
    for _ in range(_MAX_TAILS):
        for pattern in _TAILS:
            match = pattern.match(text, end)
            if match is not None and not _starts_sentence(match):
                end = match.end()
                break
        else:
            return end
    return end


def _starts_sentence(match: regex.Match[str]) -> bool:
    """Whether the first word of a would-be town is everyday language ("Please")."""
    word = regex.search(r"\p{L}[\p{L}\p{M}]+", match.group())
    if word is None or "city" not in match.re.groupindex:
        return False
    folded = fold(word.group())
    return folded in FUNCTION_WORDS or gazetteer().is_common(folded)

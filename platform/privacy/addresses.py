"""Street addresses by pattern: number and street word, European forms, postcodes, boxes."""

from __future__ import annotations

from collections.abc import Iterator

import regex

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
_UNITS = frozenset(
    words(
        "minutes minute hours hour days day weeks week months month years year miles mile km metres meters"
        " feet steps people times percent lane lanes cars rooms units points pages"
    )
)


# What a street word in front begins with, and what a cue has: cheap to look for before the patterns.
_PREFIX_STEMS = tuple(
    f"{stem} "
    for stem in words(
        "rue avenue av. boulevard bd place chemin allée impasse quai chaussée chaussee route cours via viale"
        " piazza corso vicolo largo strada calle avenida avda plaza paseo carrera camino ronda carrer rua"
        " travessa praça ul. ulica al. os. pl. jalan"
    )
)
_PREFIX_WORDS = frozenset(map(str.rstrip, _PREFIX_STEMS))
_JOIN_STARTS = frozenset("dlv(\n \u00a0")
# What `_SUFFIX` and `_STREET` can end in, or a little more.
_STREET_ENDS = (
    *words(
        "straße strasse str str. gasse allee platz weg ring damm ufer laan straat plein gracht kade dijk singel"
        " gatan gata vägen vagen väg vag gränd grand gade vej veien vegen alle allé katu tie kuja polku utca út tér"
        " útja u. iela gatvė gatve ulice ulica sti stí stræti vegur cesta"
    ),
    *(word.lower() for word in _STREET[3:-1].split("|")),
)
_ROUTING = frozenset("ACDEFHKNPRTVWXY")
_WORD_REACH = 40
_HOUSE_REACH = 16
_STREET_REACH = 200
_STREET_STEMS = tuple(words("street road rd avenue ave lane crescent boulevard terrace mews gardens drive grove close"))
_CUE_STEMS = ("address", "live", "living", "move", "moving", "resid", "deliver", "ship", "sent to")


def _needs_street_end(features: Features) -> bool:
    """A number stands right after a street word or after a word that ends like one."""
    text = features.text
    return any(
        text[start - 1 : start] == " " and text[max(0, start - 16) : start - 1].lower().endswith(_STREET_ENDS)
        for start, _ in features.runs
    )


def _needs_place_ahead(features: Features) -> Iterator[tuple[int, int]]:
    """Stretches with a number of four to six digits and the word before it."""
    text = features.text
    for start, end in features.runs:
        if 4 <= end - start <= 6 and start > 1 and text[start - 1] == " " and not text[start - 2].isspace():
            yield max(0, start - _WORD_REACH), min(len(text), end + 2)


def _before_two_letters(features: Features) -> Iterator[tuple[int, int]]:
    """Where a word ends in a digit and two letters, as a British postcode does, with what may belong to it."""
    text = features.text
    for start, end in features.runs:
        letters = text[end : end + 3]
        if letters[:2].isalpha() and (len(letters) < 3 or not (letters[2].isalnum() or letters[2] in "_-")):
            yield max(0, start - 6), end + 2


def _around_street_words(features: Features) -> list[tuple[int, int]]:
    """Stretches around street words that stand in front ("rue", "via") with something like a name after them."""
    if _PREFIX_WORDS.isdisjoint(features.words):
        return []
    text, lower = features.text, features.lower
    if len(lower) != len(text):  # a letter whose small form is two: places would not agree
        return [(0, len(text))]
    found: list[tuple[int, int]] = []
    for stem in _PREFIX_STEMS:
        place = lower.find(stem)
        while place != -1:
            follower = text[place + len(stem) : place + len(stem) + 1]
            if (follower.isupper() or follower in _JOIN_STARTS) and not text[max(0, place - 1) : place].isalnum():
                found.append((max(0, place - _HOUSE_REACH), place + _STREET_REACH))
            place = lower.find(stem, place + 1)
    return _united(found)


def _united(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    united: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


_STREET_RULES: tuple[tuple[str, regex.Pattern[str], float, Gate], ...] = (
    ("street", _ENGLISH, 0.8, lambda features: features.digit),
    ("street, number last", _AFTER, 0.7, _needs_street_end),
    ("box", _BOX, 0.8, lambda f: f.any_of(("box", "apo", "fpo", "dpo", "postfach", "boite", "boîte"))),
    (
        "state and ZIP",
        _STATE_ZIP,
        0.65,
        lambda f: any(f.text[s - 3 : s - 1].isupper() for s, e in f.runs if e - s == 5),
    ),
    ("street and ZIP", _ZIP_CITY, 0.7, lambda f: any("," in f.text[max(0, s - 6) : s] for s, e in f.runs if e - s > 2)),
    (
        "Canadian postcode",
        _CANADA,
        0.6,
        lambda f: any(e - s == 1 and f.text[s - 1 : s].isupper() and f.text[e : e + 1].isupper() for s, e in f.runs),
    ),
    ("door", _DOOR, 0.5, lambda f: f.any_of(("apt", "apartment", "suite", "ste", "flat"))),
    ("Indian door", _INDIAN_DOOR, 0.6, lambda f: f.any_of(("house", "plot", "door", "shop", "flat"))),
)


_GUARDED_RULES: tuple[tuple[str, regex.Pattern[str], float, Gate], ...] = (
    ("lower case", _LOWER, 0.65, lambda features: features.any_of(_STREET_STEMS)),
    (
        "street word first, lower case",
        _BEFORE_LOWER,
        0.65,
        lambda features: not _PREFIX_WORDS.isdisjoint(features.words),
    ),
    (
        "between two numbers",
        _TWO_NUMBERS,
        0.55,
        lambda f: any(e - s > 2 and f.text[e + 1 : e + 2].isupper() for s, e in f.runs),
    ),
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
        for rule, pattern, score, needed in _STREET_RULES:
            if not needed(features):
                continue
            for match in bounded(pattern, text):
                yield Hit(match.start(), _with_tail(text, match.end()), score, rule)
        for start, end in _around_street_words(features):
            for match in bounded(_BEFORE, text, start, end):
                if any(char.isdigit() for char in match.group()):
                    yield Hit(match.start(), _with_tail(text, match.end()), 0.7, "street word first")
        for rule, pattern, score, needed in _GUARDED_RULES:
            if not needed(features):
                continue
            for match in bounded(pattern, text):
                if not _prose(match.group("words"), unknown_only=pattern is _TWO_NUMBERS):
                    yield Hit(match.start(), _with_tail(text, match.end()), score, rule)

    @staticmethod
    def _after_cues(features: Features) -> Iterator[Hit]:
        text = features.text
        if features.any_of(_CUE_STEMS):
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
        for start, end in _needs_place_ahead(features):
            for match in bounded(_PLACE_ZIP, text, start, end):
                if fold(match.group("words")) in gazetteer().places:
                    yield Hit(*match.span(), 0.55, "place and postcode")
        for start, end in features.runs:
            if 4 <= end - start <= 5:
                found = _ZIP_PLACE.match(text, start)
                if found is not None and fold(found.group("words").rstrip(".")) in gazetteer().places:
                    yield Hit(*found.span(), 0.55, "postcode and place")
        for start, end in _before_two_letters(features):
            for match in bounded(_UK_POSTCODE_LOWER, text, start, end):
                upper = _UK_POSTCODE.fullmatch(match.group()) is not None
                score = 0.65 if upper or " " in match.group() else 0.3
                yield Hit(*match.span(), score, "UK postcode")
        if any(start and text[start - 1] in _ROUTING and end - start <= 2 for start, end in features.runs):
            for match in bounded(_EIRCODE, text):
                value = match.group()
                mixed = any(map(str.isdigit, value[3:])) and any(map(str.isalpha, value[3:]))
                yield Hit(*match.span(), 0.55 if mixed and value.isupper() else 0.2, "Eircode")
        if features.longest_run >= 5:
            for match in bounded(_ZIP, text):
                yield Hit(*match.span(), 0.2, "ZIP")


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

"""Where in a text each rule for addresses can find something: by its digits and by plain words, before any pattern.

Every address has a number, so most rules are asked only where what stands right before or behind a run of digits is
what they need. As with gates, these say yes too often and never no where a rule would have found something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from privacy.features import Features
from privacy.wordlists import words

_MARKS = frozenset("._")
_CENTURIES = ("19", "20")
_HOUSE = re.compile(r"\d{1,6}[A-Za-z]?(?:\s?[\-/]\s?\d{1,5}[A-Za-z]?)?,?\s[^\W_a-z]")
_HOUSE_LOWER = re.compile(r"\d{1,6}[^\W\d_]?,? [\w'’\-]")
_HOUSE_DIGITS = 6
_WORDS_BEFORE = 7  # a number, four words, the street word, each with a space behind it
_NUMBER_REACH = 10
_COMMA = re.compile(r",\s{0,2}(?:[A-Z]{1,2}-)?\Z")
_COMMA_REACH = 6
_CAPITALISED = re.compile(r"\S*[^\W_a-z]\S* \Z")
_WORD_REACH = 40
_ROUTING = frozenset("ACDEFHKNPRTVWXY")
_POSTCODE_LETTERS = frozenset("ABDEFGHJLNPQRSTUWXYZ")
_ZIP_DIGITS = 5

# What a street word in front begins with: cheap to look for before the patterns.
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
_HOUSE_REACH = 16
_STREET_REACH = 200
# What street words at the end can end in, or a little more.
STREET_ENDS = words(
    "straße strasse str str. gasse allee platz weg ring damm ufer laan straat plein gracht kade dijk singel gatan gata"
    " vägen vagen väg vag gränd grand gade vej veien vegen alle allé katu tie kuja polku utca út tér útja u. iela gatvė"
    " gatve ulice ulica sti stí stræti vegur cesta street st road rd avenue ave av lane ln drive dr close court ct"
    " crescent cres gardens gdns grove way place pl terrace square sq hill park row mews walk boulevard blvd highway"
    " hwy parkway pkwy circle cir loop trail green rise view vale wharf quay parade promenade esplanade broadway"
    " embankment alley turnpike pike squares plaza bypass yard"
)
_LAST_TWO = frozenset(end[-2:] for end in STREET_ENDS)
_END_REACH = 16
_CUE_HEADS = ("address", "liv", "mov", "resid", "deliver", "ship", "sent")
_BEFORE_NUMBER = frozenset(words("is was to be at into from of now flat apt unit no no. number house room"))
_CUE_REACH = 64
_LAST_WORD_REACH = 9
_CUE_DIGITS = 5
_DOORS = ("apt", "apartment", "suite", "ste", "flat")
_NUMBERED = ("house", "plot", "door", "shop", "flat")
_DOOR_REACH = 12
_BEFORE_DOOR = frozenset("#.")


def _starts_word(text: str, start: int) -> bool:
    """Whether what begins here is no part of a word or of a number with a point."""
    before = text[start - 1 : start]
    return not (before.isalnum() or before in _MARKS) if before else True


def houses(features: Features) -> list[int]:
    """Where a house number may begin that a capital or a digit follows."""
    text = features.text
    return [
        start
        for start, end in features.runs
        if end - start <= _HOUSE_DIGITS and _HOUSE.match(text, start) and _starts_word(text, start)
    ]


def houses_before_letters(features: Features) -> list[int]:
    """Where a house number may begin that a word of any case follows."""
    text = features.text
    return [
        start
        for start, end in features.runs
        if end - start <= _HOUSE_DIGITS and _HOUSE_LOWER.match(text, start) and _starts_word(text, start)
    ]


def before_capitals(features: Features) -> bool:
    """A number of three digits or more stands before a capital."""
    return any(e - s > 2 and features.text[e + 1 : e + 2].isupper() for s, e in features.runs)


def behind_street_ends(features: Features) -> list[tuple[int, int]]:
    """Stretches that end in a number behind a street word, or behind a word that ends like one."""
    text = features.text
    found: list[tuple[int, int]] = []
    for start, end in features.runs:
        if text[start - 1 : start] != " " or text[max(0, start - 3) : start - 1].lower() not in _LAST_TWO:
            continue
        if text[max(0, start - _END_REACH) : start - 1].lower().endswith(STREET_ENDS):
            first = start
            for _ in range(_WORDS_BEFORE):
                first = text.rfind(" ", 0, first)
                if first < 0:
                    break
            found.append((max(0, first), min(len(text), end + _NUMBER_REACH)))
    return united(found)


def has_prefix(features: Features) -> bool:
    """A street word that stands in front is among the words."""
    return not _PREFIX_WORDS.isdisjoint(features.words)


def around_prefixes(features: Features) -> list[tuple[int, int]]:
    """Stretches around street words that stand in front ("rue", "via") with something like a name after them."""
    if not has_prefix(features):
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
    return united(found)


def united(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The stretches in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def cued(features: Features) -> bool:
    """A number stands behind what may be the last word of a cue ("moved to 5"), and before it the first of one."""
    text = features.text
    for start, end in features.runs:
        if end - start > _CUE_DIGITS or not text[start - 1 : start].isspace():
            continue
        last = text[max(0, start - _LAST_WORD_REACH) : start].lower().split()[-1:]
        if last and (last[0] in _BEFORE_NUMBER or last[0][-1] == ":"):
            before = text[max(0, start - _CUE_REACH) : start].lower()
            if any(head in before for head in _CUE_HEADS):
                return True
    return False


def doors(features: Features) -> bool:
    """A number stands behind a word for a flat."""
    text = features.text
    for start, _ in features.runs:
        before = text[start - 1 : start]
        if before in _BEFORE_DOOR or before.isspace():
            word = text[max(0, start - _DOOR_REACH) : start].lower().rstrip("#").rstrip().rstrip(".")
            if word.endswith(_DOORS):
                return True
    return False


def indian_doors(features: Features) -> bool:
    """A number stands behind "no" or "number", in a text that has a word for what is numbered."""
    text = features.text
    return features.any_of(_NUMBERED) and any(
        "n" in (before := text[max(0, start - _DOOR_REACH) : start].lower()) and ("no" in before or "number" in before)
        for start, _ in features.runs
    )


def states(features: Features) -> bool:
    """Five digits stand behind capitals."""
    return any(e - s == _ZIP_DIGITS and features.text[s - 3 : s - 1].isupper() for s, e in features.runs)


def behind_commas(features: Features) -> bool:
    """Three to five digits stand right behind a comma, or behind it with the letters of a country."""
    text = features.text
    return any(
        2 < end - start <= _ZIP_DIGITS
        and text[end : end + 1] == " "
        and (text[end + 1 : end + 2].isupper() or text[end + 1 : end + 2].isdigit())
        and "," in (before := text[max(0, start - _COMMA_REACH) : start])
        and _COMMA.search(before)
        for start, end in features.runs
    )


def canadian(features: Features) -> bool:
    """One digit stands between capitals."""
    text = features.text
    return any(e - s == 1 and text[s - 1 : s].isupper() and text[e : e + 1].isupper() for s, e in features.runs)


def behind_places(features: Features) -> Iterator[tuple[int, int]]:
    """Stretches with a number of four to six digits that is no year, and the word with a capital before it."""
    text = features.text
    for start, end in features.runs:
        if not 4 <= end - start <= 6 or text[start - 1 : start] != " ":
            continue
        if end - start == 4 and text.startswith(_CENTURIES, start):
            continue
        after = text[end : end + 1]
        low = max(0, start - _WORD_REACH)
        if not (after.isalnum() or after in {"_", "-"}) and _CAPITALISED.search(text, low, start):
            yield low, min(len(text), end + 2)


def before_places(features: Features) -> Iterator[int]:
    """Where four or five digits begin that a space or a capital follows."""
    text = features.text
    for start, end in features.runs:
        if 4 <= end - start <= _ZIP_DIGITS and (text[end : end + 1] == " " or text[end : end + 1].isupper()):
            yield start


def before_two_letters(features: Features) -> Iterator[tuple[int, int]]:
    """Where a word ends in a digit and two letters, as a British postcode does, with what may belong to it."""
    text = features.text
    for start, end in features.runs:
        letters = text[end : end + 3]
        if (
            letters[:1].upper() in _POSTCODE_LETTERS
            and letters[1:2].upper() in _POSTCODE_LETTERS
            and (len(letters) < 3 or not (letters[2].isalnum() or letters[2] in "_-"))
        ):
            yield max(0, start - 6), end + 2


def routed(features: Features) -> bool:
    """One or two digits stand behind a letter that Irish postcodes begin with."""
    text = features.text
    return any(end - start <= 2 and start and text[start - 1] in _ROUTING for start, end in features.runs)


def zips(features: Features) -> list[int]:
    """Where five digits stand alone."""
    text = features.text
    return [s for s, e in features.runs if e - s == _ZIP_DIGITS and _starts_word(text, s) and text[s - 1 : s] != "-"]

"""Sentences that need no name model: made of everyday words alone, written as everyday words are.

Errs on the side of reading: one word that the lists do not know, a word that somebody could be called, a capital inside
the sentence, a letter that is not Latin, or a number that could belong to an address, and the sentence is read.
"""

from __future__ import annotations

import re
from functools import lru_cache

from privacy.documents import FILLER
from privacy.gazetteer import DATA_DIR, FUNCTION_WORDS, gazetteer
from privacy.wordlists import words

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_LONGEST = 1000
_OPENING = " \t\"'“‘(*"
_SENTENCE_ENDS = frozenset(".!?")
_NUMBER_DIGITS = 3
_FEW_WORDS = 3
# Faker's lists take them for names, and so does nobody who writes them in lower case.
_LANGUAGE = frozenset(
    words("""
    add age among author back begin best block branch can car case cases cash clear close come comment company constant
    cross date deep doctor drop early edit else enter ever fair fall fee field fields fit floor force forget fresh gas
    general goes guard hand held hence hide hole hour house job key kind less line link list long lot low lower major
    manage master math media minor nice odd one over owe pages parent parts per pole police poll post power price prior
    put ran read real reason red ring roll room run sale server short side skip small smart sole split stock strong tab
    till tiny topic trace unique unknown us valid wall water way ways weeks winter worth zero
    """)
)
_DETERMINERS = frozenset(words("the a an this each every your its their"))
_BEFORE_AUXILIARY = frozenset(words("you we it they i he she this that which who there what"))
_AUXILIARIES = frozenset({"will", "may"})
_FOLLOWED = [[word] for word in words("be not have also only need never always still then it")]
_NEGATED = frozenset(words("don doesn didn isn aren wasn weren haven hasn hadn won wouldn shouldn couldn mustn can"))
_SHORTENED = frozenset(words("s re ve ll d m"))
_GREETINGS = frozenset(words("hi hello hey hiya dear"))
# Behind these a word that somebody could be called is read, however common it is ("my friend winter").
_PEOPLE = _GREETINGS | frozenset(
    words("""
    agent aunt boss brother client colleague cousin customer daughter doctor employee engineer friend landlady landlord
    manager neighbour neighbor nurse officer patient sister son teacher technician tenant uncle
    """)
)
# Words beside which a name is likely, however it is written.
_CUES = frozenset(
    words("""
    mr mrs ms miss mx dr prof sir madam lady lord herr frau name names named called surname nickname signed regards
    sincerely neighbour neighbor colleague husband wife
    """)
)
_STREETS = frozenset(
    words("""
    street road rd avenue ave lane drive close court crescent gardens garden grove way place terrace square hill park
    row mews walk boulevard highway parkway circle loop trail green rise view vale wharf quay parade alley plaza yard
    flat apartment suite box house cottage farm estate bridge gate corner unit block building room zip postcode address
    """)
)


@lru_cache(maxsize=1)
def everyday_words() -> frozenset[str]:
    """Words that nobody is called, and those of grammar. Raises FileNotFoundError where the list is missing."""
    lists = gazetteer()
    written = frozenset((DATA_DIR / "everyday_words.txt").read_text(encoding="utf-8").split("\n")) - {""}
    # The gazetteer knows a few cities more than the lists that the words were written against.
    unnamed = written - lists.first - lists.last - lists.places
    return (unnamed | FUNCTION_WORDS | {"i"}) - _CUES


def needs_no_reading(sentence: str) -> bool:
    """Whether everyday words are all that the sentence is made of. Never true of an unknown word."""
    if len(sentence) > _LONGEST:
        return False
    tokens = list(_TOKEN.finditer(sentence))
    lower = [match.group().lower() for match in tokens]
    masked = FILLER in sentence
    numbers = False
    for at, match in enumerate(tokens):
        word = match.group()
        if word.isdecimal() and word.isascii() and len(word) <= _NUMBER_DIGITS:
            numbers = True
        elif word.islower():
            if not _everyday(lower, at, masked=masked):
                return False
        elif word != "I" and not _begins(sentence, match, len(tokens)):
            return False
    return not (numbers and any(word in _STREETS for word in lower))


def _everyday(lower: list[str], at: int, *, masked: bool) -> bool:
    word = _without_shortening(lower[at])
    before = lower[at - 1] if at else ""
    if word in everyday_words():
        return before not in _GREETINGS or word in FUNCTION_WORDS
    if word in _AUXILIARIES and (before in _BEFORE_AUXILIARY or lower[at + 1 : at + 2] in _FOLLOWED):
        return True
    # Beside a mask it could be the other half of a name.
    if masked or before in _PEOPLE:
        return False
    return word in _LANGUAGE or (before in _DETERMINERS and gazetteer().is_common(word) and word not in _CUES)


def _begins(sentence: str, match: re.Match[str], count: int) -> bool:
    """Whether a word with a capital has it because a sentence begins there, and is an everyday word."""
    word = match.group()
    if not (word[0].isupper() and (len(word) == 1 or word[1:].islower())):
        return False
    before = sentence[: match.start()].rstrip(_OPENING)
    if before and before[-1] not in _SENTENCE_ENDS:
        return False
    plain = _without_shortening(word.lower())
    if plain in FUNCTION_WORDS or plain == "i":
        return True
    # "Storm" as an answer, or "Storm, are you there?": an everyday word that somebody is called by.
    alone = count < _FEW_WORDS or sentence[match.end() : match.end() + 1] in {",", ":"}
    return plain in everyday_words() and not alone


def _without_shortening(word: str) -> str:
    """The word of "it's" or "doesn't"; any other word as it is."""
    if word.isalpha():
        return word
    stem, mark, tail = word.replace("’", "'").partition("'")
    if not mark:
        return word
    if tail == "t" and stem in _NEGATED:
        return "not"
    return stem if tail in _SHORTENED else word

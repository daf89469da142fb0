"""The wordings after which a name is expected, even in lower case."""

from __future__ import annotations

from dataclasses import dataclass, replace

import regex

from privacy.features import Features, Gate
from privacy.wordlists import words

TITLES = frozenset(
    words(
        "mr mrs ms miss mx dr prof professor sir madam lady lord rev reverend herr frau monsieur madame"
        " mme señor señora senor senora signor signora dott doctor captain capt sgt lt"
    )
)


@dataclass(frozen=True, slots=True)
class Cue:
    """Words that announce a name.

    `strong` cues accept lower-case words that no list knows; `takes_unknown` cues accept such
    words when capitalised; `takes_common` cues accept names that are everyday words ("Will"), and
    lower case; after `self_introduction` cues people name themselves. A text of which `gate` says no
    is not searched: it has not the words that the pattern needs.
    """

    pattern: regex.Pattern[str]
    gate: Gate
    score: float
    strong: bool = False
    takes_unknown: bool = False
    takes_common: bool = True
    self_introduction: bool = False

    def with_title(self) -> Cue:
        """The same cue once a title ("Mr") followed it: anything after that is a name."""
        return replace(self, takes_unknown=True)


# "This is john from Leeds": in prose about things more words follow.
_SHORT_INTRODUCTION = (
    r"[ ,]{1,2}\p{L}[\p{L}'’\-]+(?: \p{L}[\p{L}'’\-]+)?"
    r"(?:[,.!?\n]|\s*$| (?:from|here|speaking|again|calling|writing)\b)"
)


def _cue(pattern: str, gate: Gate, score: float, **flags: bool) -> Cue:
    return Cue(regex.compile(rf"(?<![\w'’])(?:{pattern})", regex.IGNORECASE), gate, score, **flags)


def _one_of(wanted: str) -> Gate:
    """Whether one of these words stands in the text."""
    known = frozenset(words(wanted))
    return lambda features: not known.isdisjoint(features.spoken)


def _part_of(*needles: str) -> Gate:
    """Whether one of these stands in the text, as a word or in one."""
    return lambda features: features.any_of(needles)


_OWN = _one_of("my our his her their")
_RELATIVES = _one_of(
    "husband wife partner son daughter mother father mum mom dad brother sister friend colleague neighbour neighbor"
    " landlord landlady flatmate kid child nephew niece roommate uncle aunt cousin boss girlfriend boyfriend fiance"
    " fiancé fiancee fiancée"
)
_SPOKEN_WITH = _one_of("mr mrs ms miss mx dr prof herr frau spoke spoken speaking talked behalf")
_LABELLED = _part_of(
    *("name", "holder", "customer", "tenant", "patient", "contact", "attn", "attention", "signed", "sender"),
    *("recipient", "spouse", "caller"),
)


# After these words a capitalised word is a place, and so is a listed place in lower case.
PLACE_CUE = regex.compile(
    r"(?<!\w)(?:(?:lives?|living|lived|based|born|raised|located|staying|reside[sd]?|residing"
    r"|grew up|travell?ing|moved|moving|moves?|relocated|flew|fly|flying) (?:here )?(?:in|to|from|near)"
    r"|(?:i am|i['’]m|we are|we['’]re|she is|he is|she['’]s|he['’]s|come|comes|originally)"
    r" (?:originally )?from|(?:i am|i['’]m|we are|we['’]re) in) ",
    regex.IGNORECASE,
)

_SETTLED = _one_of(
    "live lives living lived based born raised located staying reside resides resided residing grew traveling"
    " travelling moved moving move moves relocated flew fly flying"
)
_PEOPLE_COME = _one_of("i we she he come comes originally")
_I_OR_WE = _one_of("i we")


def speaks_of_places(features: Features) -> bool:
    """Whether a text has the words that PLACE_CUE needs."""
    spoken = features.spoken
    return (
        _SETTLED(features) or ("from" in spoken and _PEOPLE_COME(features)) or ("in" in spoken and _I_OR_WE(features))
    )


CUES: tuple[Cue, ...] = (
    _cue(
        r"(?:my|his|her|their|your) (?:full |first |last |middle |maiden |sur)?name(?:['’]?s| is| was|[:?])+"
        r"|(?:you can |please |just |they |everyone )?calls? me|i am called|i['’]m called"
        r"|the name['’]?s|the name is|name['’]s",
        _part_of("name", "call me", "calls me", "called"),
        0.9,
        strong=True,
        takes_unknown=True,
        self_introduction=True,
    ),
    _cue(
        r"(?:\b(?:full|first|last|sur|customer|client|user|contact|account|tenant|patient|agent"
        r"|holder|billing|cardholder)[ _-]?)?name ?[:=](?!=)|surname ?[:=]|(?:account ?holder|customer"
        r"|tenant|patient|contact|attn|attention|signed|sender|recipient|spouse|caller) ?[:=](?!=)",
        lambda features: (":" in features.text or "=" in features.text) and _LABELLED(features),
        0.85,
        strong=True,
        takes_unknown=True,
    ),
    _cue(
        r"(?:mr|mrs|ms|miss|mx|dr|prof|herr|frau)\.? |(?:spoke|spoken|speaking|talked) (?:to|with) "
        r"|on behalf of |(?:my|our|his|her|their) (?:husband|wife|partner|son|daughter|mother"
        r"|father|mum|mom|dad|brother|sister|friend|colleague|neighbou?r|landlord|landlady|flatmate|kid|child|nephew|niece"
        r"|roommate|uncle|aunt|cousin|boss|girlfriend|boyfriend|fianc[eé]e?),? ",
        lambda features: _SPOKEN_WITH(features) or (_OWN(features) and _RELATIVES(features)),
        0.8,
        takes_unknown=True,
    ),
    _cue(
        r"i['’]?m |i am ",
        _part_of("i'm", "i’m", "im ", "i am"),
        0.75,
        takes_unknown=False,
        self_introduction=True,
    ),
    _cue(
        r"(?:dear|hi|hello|hey|hiya|good (?:morning|afternoon|evening)),? ",
        _one_of("dear hi hello hey hiya good"),
        0.75,
        takes_unknown=True,
    ),
    _cue(
        rf"(?:(?:this|here|it) is|it['’]s|speaking[,:]?)(?={_SHORT_INTRODUCTION})",
        _part_of("this is", "it is", "here is", "it's", "it’s", "speaking"),
        0.75,
    ),
    _cue(
        r"(?:(?:this|here) is|from:|to:|cc:|by:)",
        _part_of("this is", "here is", "from:", "to:", "cc:", "by:"),
        0.75,
        takes_common=False,
    ),
    _cue(
        r"(?:(?:kind|best|warm|many)? ?regards|cheers|sincerely|best wishes|yours(?: truly| faithfully"
        r"| sincerely)?|many thanks|thanks(?: a lot| again| in advance)?|thank you|ta|love|best)\b"
        r"[,.!\-–]* ?\n{0,3}",
        _one_of(
            "regards kindregards bestregards warmregards manyregards cheers sincerely best yours thanks thank ta love"
        ),
        0.75,
        self_introduction=True,
    ),
)

"""The wordings after which a name is expected, even in lower case."""

from __future__ import annotations

from dataclasses import dataclass, replace

import regex

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
    lower case; after `self_introduction` cues people name themselves. A text
    with none of the lower-case `needles` is not searched.
    """

    pattern: regex.Pattern[str]
    needles: tuple[str, ...]
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


def _cue(words: str, needles: str, score: float, **flags: bool) -> Cue:
    pattern = regex.compile(rf"(?<![\w'’])(?:{words})", regex.IGNORECASE)
    return Cue(pattern, tuple(needles.split("|")), score, **flags)


# After these words a capitalised word is a place, and so is a listed place in lower case.
PLACE_CUE = regex.compile(
    r"(?<!\w)(?:(?:lives?|living|lived|based|born|raised|located|staying|reside[sd]?|residing"
    r"|grew up|travell?ing|moved|moving|moves?|relocated|flew|fly|flying) (?:here )?(?:in|to|from|near)"
    r"|(?:i am|i['’]m|we are|we['’]re|she is|he is|she['’]s|he['’]s|come|comes|originally)"
    r" (?:originally )?from|(?:i am|i['’]m|we are|we['’]re) in) ",
    regex.IGNORECASE,
)

# A lower-case text with none of these has no such words.
PLACE_NEEDLES = (
    *("live", "living", "based", "born", "raised", "locat", "staying", "resid", "grew", "travel", "mov", "flew", "fly"),
    *(" from", "i am", "i'm", "i’m", "we are", "we're", "we’re"),
)

CUES: tuple[Cue, ...] = (
    _cue(
        r"(?:my|his|her|their|your) (?:full |first |last |middle |maiden |sur)?name(?:['’]?s| is| was|[:?])+"
        r"|(?:you can |please |just |they |everyone )?calls? me|i am called|i['’]m called"
        r"|the name['’]?s|the name is|name['’]s",
        "name|call me|calls me|called",
        0.9,
        strong=True,
        takes_unknown=True,
        self_introduction=True,
    ),
    _cue(
        r"(?:\b(?:full|first|last|sur|customer|client|user|contact|account|tenant|patient|agent"
        r"|holder|billing|cardholder)[ _-]?)?name ?[:=](?!=)|surname ?[:=]|(?:account ?holder|customer"
        r"|tenant|patient|contact|attn|attention|signed|sender|recipient|spouse|caller) ?[:=](?!=)",
        "name|holder|customer|tenant|patient|contact|attn|attention|signed|sender|recipient|spouse|caller",
        0.85,
        strong=True,
        takes_unknown=True,
    ),
    _cue(
        r"(?:mr|mrs|ms|miss|mx|dr|prof|herr|frau)\.? |(?:spoke|spoken|speaking|talked) (?:to|with) "
        r"|on behalf of |(?:my|our|his|her|their) (?:husband|wife|partner|son|daughter|mother"
        r"|father|mum|mom|dad|brother|sister|friend|colleague|neighbou?r|landlord|landlady|flatmate|kid|child|nephew|niece"
        r"|roommate|uncle|aunt|cousin|boss|girlfriend|boyfriend|fianc[eé]e?),? ",
        "mr|ms|miss|mx|dr|prof|herr|frau|sp|talked|behalf|my |our |his |her |their ",
        0.8,
        takes_unknown=True,
    ),
    _cue(
        r"i['’]?m |i am ",
        "i'm|i’m|im |i am",
        0.75,
        takes_unknown=False,
        self_introduction=True,
    ),
    _cue(
        r"(?:dear|hi|hello|hey|hiya|good (?:morning|afternoon|evening)),? ",
        "dear|hi|hello|hey|good ",
        0.75,
        takes_unknown=True,
    ),
    _cue(
        rf"(?:(?:this|here|it) is|it['’]s|speaking[,:]?)(?={_SHORT_INTRODUCTION})",
        "this is|it is|here is|it's|it’s|speaking",
        0.75,
    ),
    _cue(
        r"(?:(?:this|here) is|from:|to:|cc:|by:)",
        "this is|here is|from:|to:|cc:|by:",
        0.75,
        takes_common=False,
    ),
    _cue(
        r"(?:(?:kind|best|warm|many)? ?regards|cheers|sincerely|best wishes|yours(?: truly| faithfully"
        r"| sincerely)?|many thanks|thanks(?: a lot| again| in advance)?|thank you|ta|love|best)\b"
        r"[,.!\-–]* ?\n{0,3}",
        "regards|cheers|sincerely|best|yours|thank|love|ta",
        0.75,
        self_introduction=True,
    ),
)

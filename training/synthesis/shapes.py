"""What values look like in a statement, and the small changes of wording that a question needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

MONEY = (
    r"(?:about |up to |only |at most |at least )?"
    r"(?:[£$€]\d[\d,.]*|\d[\d,.]*\s?(?:p|pence|cents?|euros?|pounds?|dollars?)\b)"
)
NUMBER = r"(?:\d[\d,.]*|one|two|three|four|five|six|seven|eight|nine|ten|twelve|half an?)"
UNIT = r"(?:working |calendar |business )?(?:seconds?|minutes?|hours?|days?|weeks?|weekends?|months?|years?|terms?)"
SPAN = rf"(?:about |up to |at least |at most |usually |only )?{NUMBER} {UNIT}\b"
MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
DAY = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_DATE = (
    rf"(?:\d{{1,2}}(?::\d\d)?\s?(?:am|pm)\b|\d{{1,2}} (?:{MONTH})|(?:{MONTH})|(?:{DAY})s?"
    rf"|(?:working|calendar|next|same|first|last) (?:working )?days?|day of)"
)
MOMENT = (
    rf"(?:(?:within|after|before|in the (?:first|last)|no later than|during the) (?:(?!and )[^\s,]+ ){{0,4}}?"
    rf"(?:{SPAN}|{_DATE})|(?:by|until|on|from|between|at) (?:(?!and |for )[^\s,]+ ){{0,2}}?{_DATE})"
)
PERSON = re.compile(
    r"^(?:(?:a|an|the|every|each|any) )?(?:customer|household|user|member|visitor|applicant|student|you|resident|"
    r"account holder|client|employee|patient|claimant|veteran|borrower)s?$",
    re.I,
)
COUNTED = r"\b(?:at most|at least|twice|times|only|between)\b"
TAIL = re.compile(
    r"(?:,? (?:free of|free|within|before|after|when|if|until|unless|because|so that|but|and|or|with|by|for|from|at|on|"
    r"in|under|through|as|once|every|up to|at most|at least|to|of charge|via|per|without|while|except)\b.*|,.*)$"
)
PLACE = re.compile(r"^(?:under|in the|in|at the|on the|above|below|beside|behind|next to|near) ")
DONE = (
    r"((?:\w+(?:ed|en|id|ept|ent|ade|old|ought|one|ead|own|et|ut|un|ound|eld|it))"
    r"(?: (?:up|down|out|off|back|on|in))?)"
)
NO_REFERENT = re.compile(r"\b(?:it|its|they|them|their|this|these|those|that|such|he|she|his|her|here|there)\b", re.I)
HOW = r"^(?:by \w+ing|through the|via|in the [A-Z]\w+ app|in the app|on the website)\b"
TAIL_KEPT = re.compile(r"^ (?:in|on|for|when|if|with|at) [^,]{3,60}$")


@dataclass(frozen=True)
class Asked:
    """A question by rule. ``frame`` names what is asked for; ``subject`` about whom, as inside a question."""

    question: str
    frame: str
    subject: str
    rank: int = 1
    """1: asks for a value; 2: asks whether; 3: asks in general. Lower ones are taken first."""


def whole(frame: str, question: str, subject: str, rank: int = 1) -> Asked:
    text = " ".join(question.split())
    return Asked(f"{text[:1].upper()}{text[1:]}?", frame, subject, rank)


def to_me(text: str) -> str:
    """What a reader writes where the document says "you" and "we"."""
    text = re.sub(r"\bwe\b", "\x00", text)
    text = re.sub(r"\byou are\b", "I am", text)
    text = re.sub(r"\byou['’]re\b", "I'm", text)
    text = re.sub(r"\b(?:your|their|his or her)\b", "my", text)
    return re.sub(r"\byou\b", "I", text).replace("\x00", "you")


def to_us(text: str) -> str:
    return re.sub(r"\bour\b", "your", re.sub(r"\byour\b", "my", text))


DENIES = r"\b(?:no|not|never|none|free|without|cannot|nothing)\b"
"""Says that there is none: an answer as well."""


def head(subject: str) -> str:
    """ "the early termination charge on Owl" → "charge"."""
    return _BEHIND.split(subject, maxsplit=1)[0].split()[-1].casefold()


def behind(subject: str) -> str:
    """ "the early termination charge on Owl" → "on Owl"; empty where nothing stands behind the head."""
    found = _BEHIND.search(subject)
    return subject[found.start() :].strip() if found else ""


_BEHIND = re.compile(
    r" (?:of|on|in|at|for|from|with|without|by|to|outside|inside|under|over|within|after|before|during|between|until) "
)

"""How people word things: statements with decoration, questions in other words, "you" turned into "I"."""

from __future__ import annotations

import random
import re

from training.base_model import slots

_TO_FIRST_PERSON = ((r"\byou are\b", "I am"), (r"\byour\b", "my"), (r"\byou\b", "I"))
_SAME_MEANING = [
    line.split("|")
    for line in (
        "fee|charge|cost|price", "minimum|lowest|least", "maximum|highest|most", "deadline|last date|cut-off",
        "cancel|call off", "book|reserve", "rent|hire", "buy|purchase", "send|post", "change|alter|modify",
        "report|tell someone about", "get|obtain|receive", "bring|take along", "lost|missing|gone", "broken|damaged",
        "duration|length", "guests|visitors", "begin|start", "repair|fix", "allowed|permitted", "contact|reach",
        "children|kids", "start|beginning", "limit|cap", "deposit|security payment", "parcel|package",
        "needed|required",
        "notice period|period of notice", "processing time|time it takes", "validity|how long it is valid",
        "order|request", "return|give back", "storage|storing", "monthly|per month", "yearly|annual", "use|make use of",
        "extend|prolong", "pay|settle", "fails|does not work", "late|delayed", "account|profile", "swap|exchange",
    )
    for line in [line]
]  # fmt: skip
_OTHER_WORDS = {word: [w for w in group if w != word] for group in _SAME_MEANING for word in group}
_FIRST_PERSON_PREFIX = ["", "", "", "", "", "Hi, ", "Hello, ", "Quick question: ", "Please tell me: ", "Sorry, "]


def first_person(text: str) -> str:
    """What a reader writes where the document says "you"."""
    for pattern, replacement in _TO_FIRST_PERSON:
        text = re.sub(pattern, replacement, text, flags=re.I)
    return text


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:] if not text[:2].isupper() and not text[:1].isdigit() else text


def vary_question(question: str, rng: random.Random) -> str:
    """The same question as somebody else would type it: other words, greetings, lower case, no question mark."""
    words = []
    for word in question.split(" "):
        bare = word.rstrip("?.,")
        others = _OTHER_WORDS.get(bare)
        swap = rng.choice(others) + word[len(bare) :] if others and rng.random() < 0.25 else word
        words.append(swap)
    question = " ".join(words)
    draw = rng.random()
    if draw < 0.08:
        question = question.lower()
    elif draw < 0.14:
        question = question.rstrip("?.")
    elif draw < 0.24:
        prefix = rng.choice(_FIRST_PERSON_PREFIX)
        question = prefix + (lower_first(question) if prefix and not question.startswith("I ") else question)
    elif draw < 0.27:
        question = question.rstrip("?.") + rng.choice([", please?", " exactly?", "??", " please", " then?"])
    return question


def decorate(plain: str, rng: random.Random) -> tuple[str, bool]:
    """A plain statement as a document may print it, and whether the answer should be the plain one."""
    draw = rng.random()
    if draw < 0.6:
        return plain, False
    if draw < 0.8:
        start = rng.choice(
            ["Please note that", "Note that", "Remember that", "Please be aware that", "It is important to know that",
             "We would like to point out that", "Good to know:", "Important:", "Reminder:"]
        )  # fmt: skip
        return f"{start} {lower_first(plain)}", True
    end = rng.choice(
        ["(see section {n})", "(as of {m})", "(all sites)", "(rule {n})", "(updated in {m})", "(page {n})"]
    )
    end = end.format(n=rng.randint(2, 40), m=rng.choice(slots.MONTHS))
    return f"{plain[:-1]} {end}.", True


def thing_phrase(thing: str) -> tuple[str, str, bool]:
    """``-stamps`` → ("stamps", "stamps", plural); ``adult card`` → ("adult card", "the adult card", False)."""
    if thing.startswith("-"):
        return thing[1:], thing[1:], thing.endswith("s")
    return thing, f"the {thing}", False

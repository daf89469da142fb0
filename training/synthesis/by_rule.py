"""Questions made from a statement by rule: what a small model cannot write, and what is right by construction.

A frame is one way to ask for one thing that a statement says: what it costs, how long it takes, when, where, whether.
Where no frame fits there is no question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import replace

from training.synthesis.clauses import read_clause
from training.synthesis.frames import of_being, of_modals, of_verbs
from training.synthesis.shapes import NO_REFERENT, NUMBER, TAIL_KEPT, Asked, to_me, to_us, whole

MAX_CHARS = 400
"""Of a sentence: beyond, the patterns would take their time, and no plain statement is that long."""


def ask_by_rule(sentence: str, rng: random.Random, names: Collection[str] = frozenset()) -> Asked | None:
    """A question that ``sentence`` answers, or None. The same ``rng`` state gives the same question."""
    found = all_by_rule(sentence, names)
    if not found:
        return None
    best = min(asked.rank for asked in found)
    return rng.choice([asked for asked in found if asked.rank == best])


def all_by_rule(sentence: str, names: Collection[str] = frozenset()) -> list[Asked]:
    """Every question that a frame gives, in the order of the frames."""
    if len(sentence) > MAX_CHARS:
        return []
    found = [*_of_conditions(sentence), *_of_existence(sentence)]
    clause = read_clause(sentence, names)
    if clause is not None and not NO_REFERENT.search(clause.subject):
        clause = replace(clause, subject=to_us(clause.subject))
        makers = {"be": of_being, "modal": of_modals, "verb": of_verbs}
        found += makers[clause.kind](clause)
    return [asked for asked in found if _reads_well(asked.question)]


def _reads_well(question: str) -> bool:
    count = len(question.split())
    return 3 <= count <= 18 and not NO_REFERENT.search(question.split(" ", 2)[2])


def _of_conditions(sentence: str) -> list[Asked]:
    text = sentence.strip().rstrip(".!")
    if match := re.match(r"^(If|When) ([^,]{8,80}), [^,].{10,}$", text):
        clause = to_me(match.group(2))
        if not re.match(rf"(?:.* )?{NUMBER}\b.*\b{NUMBER}\b", clause):
            return [whole("what if", f"what happens {match.group(1).lower()} {clause}", clause)]
    if match := re.match(r"^(?:To|In order to) ([a-z][^,]{5,70}), ", text):
        return [whole("how", f"how do I {to_me(match.group(1))}", match.group(1))]
    if match := re.match(
        r"^(?:Press|Hold|Turn|Use|Open|Call|Choose|Send|Set|Type) .+? "
        r"to (?!the |a |an |my |one |zero )([a-z][\w ]{4,50})$",
        text,
    ):
        return [whole("how", f"how do I {to_me(match.group(1))}", match.group(1))]
    return []


def _of_existence(sentence: str) -> list[Asked]:
    text = sentence.strip().rstrip(".!")
    if match := re.match(r"^There is no ([\w' -]{3,60}?)( (?:on|for|in|with|at|to) [\w' ]{2,40})?$", text):
        thing = match.group(1) + (match.group(2) or "")
        return [whole("whether", f"is there {_article(thing)} {thing}", thing)]
    if match := re.match(r"^No ([a-z][\w' -]{3,50}?) (?:is|are) (due|charged|paid|needed|required)( .+)?$", text):
        tail = TAIL_KEPT.match(match.group(3) or "")
        if match.group(3) and not tail:
            return []  # "while a plan is kept": without its condition it would be another question
        asked = f"is {_article(match.group(1))} {match.group(1)} {match.group(2)}{tail.group(0) if tail else ''}"
        return [whole("whether", asked, match.group(1))]
    return []


def _article(thing: str) -> str:
    return "any" if re.match(r"^\w+s\b", thing) else "an" if thing[0] in "aeiou" else "a"

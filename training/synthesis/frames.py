"""The frames: one way each to ask for one thing that a clause says."""

from __future__ import annotations

import re

from training.synthesis.clauses import Clause
from training.synthesis.shapes import (
    COUNTED,
    DONE,
    HOW,
    MOMENT,
    MONEY,
    NUMBER,
    PERSON,
    PLACE,
    SPAN,
    TAIL,
    UNIT,
    Asked,
    head,
    to_me,
    to_us,
    whole,
)  # fmt: skip


def of_being(clause: Clause) -> list[Asked]:
    subject, be, rest = clause.subject, clause.verb, clause.rest
    if PERSON.match(subject):
        return []
    if be in ("was", "were") or rest.startswith(("not ", "also ", "then ", "no ")):
        return []
    found: list[Asked] = []
    if re.match(rf"^{MONEY}", rest):
        found += [
            whole("amount", f"what {be} {subject}", subject),
            whole("amount", f"how much {be} {subject}", subject),
        ]
    elif re.match(r"^free(?: of charge)?\b", rest):
        found.append(whole("whether", f"{be} {subject} free", subject))
    elif match := re.match(rf"^(?:valid|open|fixed|kept|stored|blocked|available|held) (?:for )?{SPAN}", rest):
        found.append(whole("how long", f"how long {be} {subject} {rest.split()[0]}", subject))
    elif re.match(r"^open (?:from|on|at|between|until)\b", rest):
        found.append(whole("when", f"when {be} {subject} open", subject))
    elif match := re.match(r"^(valid|open|fixed|kept|stored|blocked|available|held) until\b", rest):
        found.append(whole("when", f"until when {be} {subject} {match.group(1)}", subject))
    elif re.match(rf"^{SPAN}", rest) and head(subject) not in ("notice", "date", "deadline"):
        found.append(whole("how long", f"how long {be} {subject}", subject))
    elif re.match(rf"^{NUMBER}\b", rest):
        found.append(whole("amount", f"what {be} {subject}", subject))
    elif match := re.match(rf"^(?:usually |always |only |then )?{DONE}\b\s*(.*)$", rest):
        found += _of_passive(clause, match.group(1), match.group(2))
    elif re.match(r"^(?:a|an|the) (?!same\b)\w", rest) and len(subject.split()) <= 4:
        found.append(whole("what", f"what {be} {subject}", subject, 3))
    return found


def _of_passive(clause: Clause, done: str, tail: str) -> list[Asked]:
    subject, be = clause.subject, clause.verb
    asked = f"{be} {subject} {done}"
    if re.match(rf"^(?:at least |at most )?(?:every |once |twice |{NUMBER} times )", tail):
        return [whole("how often", f"how often {asked}", subject)]
    if re.match(rf"^for {SPAN}", tail):
        return [whole("how long", f"how long {asked}", subject)]
    if re.match(rf"^{MOMENT}", tail):
        return [whole("when", f"when {asked}", subject)]
    if re.match(r"^(?:by \w+ing|with|through|via|by (?:post|e-mail|phone|text|card|bank))\b", tail):
        return [whole("how", f"how {asked}", subject)]
    if PLACE.match(tail) and not re.search(r"\b(?:day|week|month|year|time|case|person|full|advance)s?\b", tail):
        return [whole("where", f"where {asked}", subject)]
    if re.match(r"^when\b|^if\b", tail):
        return [whole("when", f"when {asked}", subject)]
    return []


MAX_OBLIGED = 4
"""Words of a thing that has to do something: longer, and nobody asks it like that."""
_BY = re.compile(r"^(?:by|with|on) (?:\w+ ){0,3}\w+")


def of_modals(clause: Clause) -> list[Asked]:
    subject, modal, rest = clause.subject, clause.verb, clause.rest
    gerund = subject.split(maxsplit=1)[0].endswith("ing")
    if modal == "could" or gerund or (modal == "must" and len(subject.split()) > MAX_OBLIGED):
        return []
    person = bool(PERSON.match(subject))
    who = "I" if person else subject
    denied = modal == "cannot" or rest.startswith("not ")
    rest = rest.removeprefix("not ").removeprefix("also ").removeprefix("only ")
    doing = TAIL.sub("", rest)
    broken = re.search(r"\d|\b(?:only|than|as|most|least|more|not|switch(?:ed)?|turn(?:ed)?|sign(?:ed)?)$", doing)
    if len(doing.split()) < 2 or broken:
        return []
    doing = to_me(doing) if person else doing
    found: list[Asked] = []
    after = rest[len(TAIL.sub("", rest)) :].strip(" ,")
    ask = {"cannot": "can"}.get(modal, modal)
    if not denied and modal != "will" and (match := re.match(rf"^(?:within|for|up to) (?:.{{0,12}}?){SPAN}", after)):
        if person and match.group(0).startswith("within"):
            found.append(whole("how long", f"how long do I have to {doing}", who))
        elif match.group(0).startswith("for") and not re.search(r"\b(?:before|after)\b", after):
            found.append(whole("how long", f"how long {ask} {who} {doing}", who))
        elif match.group(0).startswith("within"):
            found.append(whole("when", f"by when {ask} {who} {doing}", who))
    elif not denied and (re.match(HOW, after) or (modal != "must" and doing.startswith("be ") and _BY.match(after))):
        found.append(whole("how", f"how {ask} {who} {doing}", who))
    elif modal in ("must", "should", "will") and re.match(rf"^{MOMENT}|^when\b", after):
        found.append(whole("when", f"when {ask} {who} {doing}", who))
    if not found and modal in ("can", "cannot", "may", "must") and not re.search(COUNTED, rest):
        kept = re.match(r"^(?:in|on|at|for|with|without|from|to) [a-zA-Z' -]{3,40}$", after)
        if after and not kept and re.match(r"^(?:as|by|to|with|or|than|for|under)\b", after):
            return []
        more = f"{doing} {after}" if kept else doing
        if modal == "must":
            do = "do" if who == "I" or _is_many(subject) else "does"
            found.append(whole("whether", f"{do} {who} have to {more}", who, 2))
        else:
            found.append(whole("whether", f"can {who} {more}", who, 2))
    return found


def _is_many(subject: str) -> bool:
    one = subject.split(maxsplit=1)[0] in ("a", "an", "each", "every")
    return head(subject).endswith("s") and not head(subject).endswith("ss") and not one


def of_verbs(clause: Clause) -> list[Asked]:
    subject, base, rest = clause.subject, clause.base, clause.rest
    we = subject == "we"
    who = "I" if PERSON.match(subject) else "you" if we else subject
    do = "do" if clause.plural or who in ("I", "you") else "does"
    if re.match(r"(?:not|no|that|than|only|to|also)\b", rest):
        means = base == "mean" and rest.startswith("that ")
        return [whole("what", f"what {do} {who} mean", who)] if means else []
    for frame, bases, pattern, ending in _VERB_FRAMES:
        if base in bases and re.match(pattern, rest):
            opening = {"amount": "how much"}.get(frame, frame)
            return [whole(frame, f"{opening} {do} {who} {ending or base}", who)]
    if base == "have" and (match := re.match(rf"^{NUMBER} ([a-z]+s|[a-z]+ [a-z]+s)(?: and\b.*|,.*|$)", rest)):
        things = match.group(1)
        return [] if re.match(rf"^{UNIT}$", things) else [whole("how many", f"how many {things} {do} {who} have", who)]
    return _of_objects(clause, who, do, we=we) or _general(clause, who, do)


_VERB_FRAMES = (
    ("amount", ("cost",), rf"^{MONEY}", ""),
    ("how long", ("take", "last"), rf"^{SPAN}", ""),
    ("how long", ("run", "apply", "count", "stay", "remain", "continue"), rf"^for {SPAN}", ""),
    ("when", ("start", "end", "begin", "arrive", "open", "close", "stop", "expire", "renew", "run"),
     rf"^{MOMENT}|^(?:with|when|as soon as|once) ", ""),
    ("when", ("take",), rf"^place {MOMENT}", "take place"),
    ("where", ("appear", "hang", "stand", "lie"), PLACE.pattern, ""),
)  # fmt: skip
_OFTEN = rf"(?:at least |at most )?(?:every {UNIT}|(?:once|twice|{NUMBER} times) (?:a|an|every|per) .+)"


def _of_objects(clause: Clause, who: str, do: str, *, we: bool) -> list[Asked]:
    """ "Tarnwick tries the instalment again after 5 days": how often, or when, something is done to something."""
    match = re.match(rf"^(.{{3,45}}?) {_OFTEN}$", clause.rest)
    if match and not re.search(r"\d|,|\bonly$", match.group(1)):
        return [whole("how often", f"how often {do} {who} {clause.base} {match.group(1)}", who)]
    match = re.match(rf"^(.{{3,45}}?) (?:{MOMENT}).*$", clause.rest)
    if match and clause.base != "have":
        what = match.group(1)
        if not re.search(r"\d|,|\b(?:when|if|while)\b|\b(?:and|or|that|which|only|not|about|of|for|than)$", what):
            return [whole("when", f"when {do} {who} {clause.base} {to_us(what) if we else what}", who)]
    return []


def _general(clause: Clause, who: str, do: str) -> list[Asked]:
    base, rest, size = clause.base, clause.rest, len(who.split())
    named = who[:1].isupper() or any(part[:1].isupper() for part in who.split())
    if who in ("I", "you") or size > 6 or (size <= 2 and not named):
        return []
    if base in ("need", "require"):
        gerund = who.split(maxsplit=1)[0].endswith("ing")
        return [whole("what", f"what do I need for {who}" if gerund else f"what {do} {who} {base}", who, 3)]
    if base in ("show", "contain", "include", "cover", "mean", "offer"):
        return [whole("what", f"what {do} {who} {base}", who, 3)]
    if base == "apply" and rest.startswith("to "):
        return [whole("what", f"what {do} {who} apply to", who, 3)]
    return []

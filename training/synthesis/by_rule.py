"""Questions made from a statement by rule: what a small model cannot write, and what is right by construction.

A frame is one way to ask for one thing that a statement says: what it costs, how long it takes, when, where, whether.
Where no frame fits there is no question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from training.synthesis.clauses import Clause, read_clause

MONEY = r"(?:about |up to |only |at most |at least )?(?:[£$€]\d[\d,.]*|\d[\d,.]*\s?(?:p|pence|cents?|euros?|pounds?|dollars?)\b)"
_NUMBER = r"(?:\d[\d,.]*|one|two|three|four|five|six|seven|eight|nine|ten|twelve|half an?)"
_UNIT = r"(?:working |calendar |business )?(?:seconds?|minutes?|hours?|days?|weeks?|weekends?|months?|years?|terms?)"
SPAN = rf"(?:about |up to |at least |at most |usually |only )?{_NUMBER} {_UNIT}\b"
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAY = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_MOMENT = (
    rf"(?:(?:within|after|before|in the (?:first|last)|no later than|during the) (?:(?!and )[^\s,]+ ){{0,4}}?"
    rf"|(?:by|until|on|from|between|at) (?:(?!and |for )[^\s,]+ ){{0,2}}?)"
    rf"(?:{SPAN}|\d{{1,2}}(?::\d\d)?\s?(?:am|pm)\b|\d{{1,2}} (?:{_MONTH})|(?:{_MONTH})|(?:{_DAY})s?"
    rf"|(?:working|calendar|next|same|first|last) (?:working )?days?|day of)"
)
_PERSON = re.compile(
    r"^(?:(?:a|an|the|every|each|any) )?(?:customer|household|user|member|visitor|applicant|student|you|resident|"
    r"account holder|client|employee|patient|claimant|veteran|borrower)s?$",
    re.I,
)
_COUNTED = r"\b(?:at most|at least|twice|times|only|between)\b"
_TAIL = re.compile(
    r"(?:,? (?:free of|free|within|before|after|when|if|until|unless|because|so that|but|and|or|with|by|for|from|at|on|in|under|"
    r"through|as|once|every|up to|at most|at least|to|of charge|via|per|without|while|except)\b.*|,.*)$"
)
_PLACE = re.compile(r"^(?:under|in the|in|at the|on the|above|below|beside|behind|next to|near) ")
_DONE = r"((?:\w+(?:ed|en|id|ept|ent|ade|old|ought|one|ead|own|et|ut|un|ound|ound|eld|it))(?: (?:up|down|out|off|back|on|in))?)"
_NO_REFERENT = re.compile(r"\b(?:it|its|they|them|their|this|these|those|that|such|he|she|his|her|here|there)\b", re.I)


@dataclass(frozen=True)
class Asked:
    """A question by rule. ``frame`` names what is asked for; ``subject`` about whom, as inside a question."""

    question: str
    frame: str
    subject: str
    rank: int = 1
    """1: asks for a value; 2: asks whether; 3: asks in general. Lower ones are taken first."""


def ask_by_rule(sentence: str, rng: random.Random, names: Collection[str] = frozenset()) -> Asked | None:
    """A question that ``sentence`` answers, or None. The same ``rng`` state gives the same question."""
    found = all_by_rule(sentence, names)
    if not found:
        return None
    best = min(asked.rank for asked in found)
    return rng.choice([asked for asked in found if asked.rank == best])


def all_by_rule(sentence: str, names: Collection[str] = frozenset()) -> list[Asked]:
    """Every question that a frame gives, in the order of the frames."""
    found = [*_of_conditions(sentence), *_of_existence(sentence)]
    clause = read_clause(sentence, names)
    if clause is not None and not _NO_REFERENT.search(clause.subject):
        clause = replace(clause, subject=_to_us(clause.subject))
        makers = {"be": _of_being, "modal": _of_modals, "verb": _of_verbs}
        found += makers[clause.kind](clause)
    return [asked for asked in found if _reads_well(asked.question)]


def _reads_well(question: str) -> bool:
    count = len(question.split())
    return 3 <= count <= 18 and not _NO_REFERENT.search(question.split(" ", 2)[2])


def _whole(frame: str, question: str, subject: str, rank: int = 1) -> Asked:
    text = " ".join(question.split())
    return Asked(f"{text[:1].upper()}{text[1:]}?", frame, subject, rank)


def _of_conditions(sentence: str) -> list[Asked]:
    text = sentence.strip().rstrip(".!")
    if match := re.match(r"^(If|When) ([^,]{8,80}), [^,].{10,}$", text):
        clause = _to_me(match.group(2))
        if not re.match(rf"(?:.* )?{_NUMBER}\b.*\b{_NUMBER}\b", clause):
            return [_whole("what if", f"what happens {match.group(1).lower()} {clause}", clause)]
    if match := re.match(r"^(?:To|In order to) ([a-z][^,]{5,70}), ", text):
        return [_whole("how", f"how do I {_to_me(match.group(1))}", match.group(1))]
    if match := re.match(r"^(Press|Hold|Turn|Use|Open|Call|Choose|Send|Set|Type) .+? to (?!the |a |an |my |one |zero )([a-z][\w ]{4,50})$", text):
        return [_whole("how", f"how do I {_to_me(match.group(2))}", match.group(2))]
    return []


def _of_existence(sentence: str) -> list[Asked]:
    text = sentence.strip().rstrip(".!")
    if match := re.match(r"^There is no ([\w' -]{3,60}?)( (?:on|for|in|with|at|to) [\w' ]{2,40})?$", text):
        thing = match.group(1) + (match.group(2) or "")
        return [_whole("whether", f"is there {_article(thing)} {thing}", thing)]
    if match := re.match(rf"^No ([a-z][\w' -]{{3,50}}?) (?:is|are) (due|charged|paid|needed|required)( .+)?$", text):
        tail = _TAIL_KEPT.match(match.group(3) or "")
        return [_whole("whether", f"is {_article(match.group(1))} {match.group(1)} {match.group(2)}"
                       f"{tail.group(0) if tail else ''}", match.group(1))]  # fmt: skip
    return []


_HOW = r"^(?:by \w+ing|through the|via|in the [A-Z]\w+ app|in the app|on the website)\b"
_TAIL_KEPT = re.compile(r"^ (?:in|on|for|when|if|with|at) [^,]{3,60}$")


def _article(thing: str) -> str:
    return "any" if re.match(r"^\w+s\b", thing) else "an" if thing[0] in "aeiou" else "a"


def _of_being(clause: Clause) -> list[Asked]:
    subject, be, rest = clause.subject, clause.verb, clause.rest
    if _PERSON.match(subject):
        return []
    if be in ("was", "were") or rest.startswith(("not ", "also ", "then ", "no ")):
        return []
    found: list[Asked] = []
    if re.match(rf"^{MONEY}", rest):
        found += [_whole("amount", f"what {be} {subject}", subject), _whole("amount", f"how much {be} {subject}", subject)]
    elif re.match(r"^free(?: of charge)?\b", rest):
        found.append(_whole("whether", f"{be} {subject} free", subject))
    elif match := re.match(rf"^(?:valid|open|fixed|kept|stored|blocked|available|held) (?:for )?{SPAN}", rest):
        found.append(_whole("how long", f"how long {be} {subject} {rest.split()[0]}", subject))
    elif re.match(r"^open (?:from|on|at|between|until)\b", rest):
        found.append(_whole("when", f"when {be} {subject} open", subject))
    elif re.match(rf"^{SPAN}", rest):
        found.append(_whole("how long", f"how long {be} {subject}", subject))
    elif re.match(rf"^{_NUMBER}\b", rest):
        found.append(_whole("amount", f"what {be} {subject}", subject))
    elif match := re.match(rf"^(?:usually |always |only |then )?{_DONE}\b\s*(.*)$", rest):
        found += _of_passive(clause, match.group(1), match.group(2))
    elif re.match(r"^(?:a|an|the) (?!same\b)\w", rest) and len(subject.split()) <= 4:
        found.append(_whole("what", f"what {be} {subject}", subject, 3))
    return found


def _of_passive(clause: Clause, done: str, tail: str) -> list[Asked]:
    subject, be = clause.subject, clause.verb
    asked = f"{be} {subject} {done}"
    if re.match(rf"^(?:at least |at most )?(?:every |once |twice |{_NUMBER} times )", tail):
        return [_whole("how often", f"how often {asked}", subject)]
    if re.match(rf"^for {SPAN}", tail):
        return [_whole("how long", f"how long {asked}", subject)]
    if re.match(rf"^{_MOMENT}", tail):
        return [_whole("when", f"when {asked}", subject)]
    if re.match(r"^(?:by \w+ing|with|through|via|by (?:post|e-mail|phone|text|card|bank))\b", tail):
        return [_whole("how", f"how {asked}", subject)]
    if _PLACE.match(tail) and not re.search(r"\b(?:day|week|month|year|time|case|person|full|advance)s?\b", tail):
        return [_whole("where", f"where {asked}", subject)]
    if re.match(r"^when\b|^if\b", tail):
        return [_whole("when", f"when {asked}", subject)]
    return []


def _of_modals(clause: Clause) -> list[Asked]:
    subject, modal, rest = clause.subject, clause.verb, clause.rest
    if modal == "could":
        return []
    person = bool(_PERSON.match(subject))
    who = "I" if person else subject
    denied = modal == "cannot" or rest.startswith("not ")
    rest = rest.removeprefix("not ").removeprefix("also ").removeprefix("only ")
    doing = _TAIL.sub("", rest)
    if len(doing.split()) < 2 or re.search(r"\d", doing) or re.search(r"\b(?:only|than|as|most|least|more|not)$", doing):
        return []
    doing = _to_me(doing) if person else doing
    found: list[Asked] = []
    after = rest[len(_TAIL.sub("", rest)) :].strip(" ,")
    ask = {"cannot": "can"}.get(modal, modal)
    if not denied and modal != "will" and (match := re.match(rf"^(?:within|for|up to) (?:.{{0,12}}?){SPAN}", after)):
        if person and match.group(0).startswith("within"):
            found.append(_whole("how long", f"how long do I have to {doing}", who))
        elif match.group(0).startswith("for") and not re.search(r"\b(?:before|after)\b", after):
            found.append(_whole("how long", f"how long {ask} {who} {doing}", who))
        elif match.group(0).startswith("within"):
            found.append(_whole("when", f"by when {ask} {who} {doing}", who))
    elif not denied and re.match(_HOW, after) or (
        not denied and modal != "must" and doing.startswith("be ") and re.match(r"^(?:by|with|on) (?:\w+ ){0,3}\w+", after)
    ):
        found.append(_whole("how", f"how {ask} {who} {doing}", who))
    elif modal in ("must", "should", "will") and re.match(rf"^{_MOMENT}|^when\b", after):
        found.append(_whole("when", f"when {ask} {who} {doing}", who))
    if not found and modal in ("can", "cannot", "may", "must") and not re.search(_COUNTED, rest):
        kept = re.match(r"^(?:in|on|at|for|with|without|from|to) [a-zA-Z' -]{3,40}$", after)
        if after and not kept and re.match(r"^(?:as|by|to|with|or|than|for|under)\b", after):
            return []
        whole = f"{doing} {after}" if kept else doing
        if modal == "must":
            do = "do" if who == "I" or _is_many(subject) else "does"
            found.append(_whole("whether", f"{do} {who} have to {whole}", who, 2))
        else:
            found.append(_whole("whether", f"can {who} {whole}", who, 2))
    return found


def _is_many(subject: str) -> bool:
    head = re.split(r" (?:of|in|on|at|for|from|with) ", subject)[0].split()[-1]
    return head.endswith("s") and not head.endswith("ss") and subject.split()[0] not in ("a", "an", "each", "every")


def _of_verbs(clause: Clause) -> list[Asked]:
    subject, base, rest = clause.subject, clause.base, clause.rest
    person = bool(_PERSON.match(subject))
    we = subject == "we"
    who = "I" if person else "you" if we else subject
    do = "do" if clause.plural or who in ("I", "you") else "does"
    if rest.split()[0] in ("not", "no", "that", "than", "only", "to", "also"):
        if base == "mean" and rest.startswith("that "):
            return [_whole("what", f"what {do} {who} mean", who)]
        return []
    if base == "cost" and re.match(rf"^{MONEY}", rest):
        return [_whole("amount", f"how much {do} {who} cost", who)]
    if base in ("take", "last") and re.match(rf"^(?:place )?{SPAN}", rest):
        return [_whole("how long", f"how long {do} {who} {base}", who)]
    if base in ("run", "apply", "count", "stay", "remain", "continue") and re.match(rf"^for {SPAN}", rest):
        return [_whole("how long", f"how long {do} {who} {base}", who)]
    if base in ("start", "end", "begin", "arrive", "open", "close", "stop", "expire", "renew", "run", "take place") and (
        re.match(rf"^{_MOMENT}|^(?:with|when|as soon as|once) ", rest)
    ):
        return [_whole("when", f"when {do} {who} {base}", who)]
    if base == "take" and re.match(rf"^place {_MOMENT}", rest):
        return [_whole("when", f"when {do} {who} take place", who)]
    if base in ("appear", "hang", "stand", "lie") and _PLACE.match(rest):
        return [_whole("where", f"where {do} {who} {base}", who)]
    if base == "have" and (match := re.match(rf"^({_NUMBER}) ([a-z]+s|[a-z]+ [a-z]+s)(?: and\b.*|,.*|$)", rest)):
        if not re.match(rf"^{_UNIT}$", match.group(2)):
            return [_whole("how many", f"how many {match.group(2)} {do} {who} have", who)]
    if match := re.match(rf"^(.{{3,45}}?) ((?:at least |at most )?(?:every {_UNIT}|(?:once|twice|{_NUMBER} times) (?:a|an|every|per) .+))$", rest):
        if not re.search(r"\d|,|\bonly$", match.group(1)):
            return [_whole("how often", f"how often {do} {who} {base} {match.group(1)}", who)]
    if match := re.match(rf"^(.{{3,45}}?) (?:{_MOMENT}).*$", rest):
        what = match.group(1)
        if not re.search(r"\d|,|\b(?:and|or|that|which|only|not|about|of|for|than)$", what) and base != "have":
            return [_whole("when", f"when {do} {who} {base} {_to_us(what) if we else what}", who)]
    return _general(clause, who, do)


def _general(clause: Clause, who: str, do: str) -> list[Asked]:
    base, rest, size = clause.base, clause.rest, len(who.split())
    named = who[:1].isupper() or any(part[:1].isupper() for part in who.split())
    if who in ("I", "you") or size > 6 or (size <= 2 and not named):
        return []
    if base in ("need", "require"):
        gerund = who.split()[0].endswith("ing")
        return [_whole("what", f"what do I need for {who}" if gerund else f"what {do} {who} {base}", who, 3)]
    if base in ("show", "contain", "include", "cover", "mean", "offer"):
        return [_whole("what", f"what {do} {who} {base}", who, 3)]
    if base == "apply" and rest.startswith("to "):
        return [_whole("what", f"what {do} {who} apply to", who, 3)]
    return []


def _to_me(text: str) -> str:
    """What a reader writes where the document says "you" and "we"."""
    text = re.sub(r"\bwe\b", "\x00", text)
    text = re.sub(r"\byou are\b", "I am", text)
    text = re.sub(r"\byou['’]re\b", "I'm", text)
    text = re.sub(r"\b(?:your|their|his or her)\b", "my", text)
    return re.sub(r"\byou\b", "I", text).replace("\x00", "you")


def _to_us(text: str) -> str:
    return re.sub(r"\bour\b", "your", re.sub(r"\byour\b", "my", text))

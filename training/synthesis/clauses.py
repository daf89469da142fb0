"""Reads a plain statement as subject, verb and rest, by closed lists: enough to turn it into a question by rule.

There is no tagger here on purpose: none can be installed without a download. What the lists do not know is not read
at all, and its sentence gets no question by rule; a wrong reading would become a wrong question.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from privacy.wordlists import words

BE = frozenset(words("is are was were"))
MODALS = frozenset(words("can may must will should cannot could"))
_VERBS = words("""
accept add affect allow amount answer appear apply approve arrange arrive ask assume attend avoid become begin
belong block bring build buy calculate call cancel carry cause change charge check choose claim clear close collect
complete confirm consist contain continue correct cost count cover create cut decide define deliver depend describe
disconnect display drop earn end ensure enter exceed expire explain fall fill find finish fit fix follow forward
give go grant hang happen hold include increase inform inspect install issue join keep know last lead leave lend let
lie limit list look lose make manage mean measure meet move need notify obtain occur offer open order own pass pay
perform permit prevent process produce protect prove provide publish put reach read receive record reduce refund
register reject remain remove renew repair replace report represent require reset review run save say sell send
serve set settle show sign stand start state stay stop store suit supply support take tell test track transfer
transmit treat try turn update use vary verify visit wait waive want warn work write
""")
_DETERMINERS = frozenset(
    words("the a an each every any all some most no new both another our your this these two three four five")
)
_NOT_A_SUBJECT = frozenset(
    words("""it they he she this that these those there here such then so however also alternatively otherwise therefore
    if when while after before until unless once because since although in on at for from with without by to of as
    during under over within between among please not only instead see and or but both what which who where why how
    otherwise usually sometimes often note""")
)
_RELATIVE = frozenset(words("that which who whose where when because while if"))
_ADVERBS = frozenset(words("always usually normally then still now also often generally"))
_REFUSED = _RELATIVE | {"never", "not", "only", "rarely"}
_LINKING = frozenset(words("and or but nor"))
_PREPOSITIONS = frozenset(words("of in on at for from with without by to into than between under over per as"))
MAX_SUBJECT = 9


def third_person(verb: str) -> str:
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ies"
    return f"{verb}s"


_BASES = {form: verb for verb in _VERBS for form in (verb, third_person(verb))} | {"has": "have", "have": "have"}
_SINGULAR = frozenset(third_person(verb) for verb in _VERBS) | {"has"}


@dataclass(frozen=True)
class Clause:
    """``subject`` reads as inside a question ("the exit fee"); ``rest``: what follows the verb, without the full stop.

    ``kind``: ``be``, ``modal`` or ``verb``; ``verb`` as written; ``base``: the verb as after "does".
    """

    subject: str
    verb: str
    base: str
    rest: str
    kind: str

    @property
    def plural(self) -> bool:
        """Whether "do" and not "does" asks for it."""
        return self.verb in ("are", "were") if self.kind == "be" else self.verb not in _SINGULAR


def read_clause(sentence: str, names: Collection[str] = frozenset()) -> Clause | None:
    """The first finite verb with what stands before and after it; None where the sentence is not that plain.

    ``names``: words that keep their capital inside a sentence (`names_in`), so that "Electricity on Owl" becomes
    "electricity on Owl" and "Tarnwick" stays as it is.
    """
    text = sentence.strip().rstrip(".!").strip()
    tokens = text.split()
    if len(tokens) < 3 or tokens[0].casefold().strip(",") in _NOT_A_SUBJECT or re.search(r"[?:;|()“”\"*\[\]]", text):
        return None
    at = _verb_at(tokens)
    if at is None:
        return None
    verb, subject, rest = tokens[at], tokens[:at], tokens[at + 1 :]
    if rest and subject[-1].casefold() in _ADVERBS:
        subject = subject[:-1]
    if not rest or not subject or any(t.casefold() in _REFUSED or t.endswith(",") for t in subject):
        return None
    kind = "be" if verb in BE else "modal" if verb in MODALS else "verb"
    return Clause(
        subject=_inside(subject, names), verb=verb, base=_BASES.get(verb, verb), rest=" ".join(rest), kind=kind
    )


def finite_verbs(tokens: Sequence[str]) -> list[int]:
    """Where finite verbs stand among the tokens of a noun phrase, as far as the lists know; not the last token, which
    is more often a noun ("the standing charges")."""
    return [at for at in range(1, len(tokens) - 1) if _is_verb(tokens, at) and tokens[at] not in _BASES.values()]


def _verb_at(tokens: Sequence[str]) -> int | None:
    return next((at for at in range(1, min(len(tokens), MAX_SUBJECT + 1)) if _is_verb(tokens, at)), None)


def _is_verb(tokens: Sequence[str], at: int) -> bool:
    token = tokens[at]
    if token.endswith(","):
        return False
    if token in BE or token in MODALS:
        return True
    before = tokens[at - 1].casefold()
    # "the charges", "of charges", "late and charges": a noun.
    if token not in _BASES or before in _DETERMINERS or before in _PREPOSITIONS or before in _LINKING:
        return False
    after = tokens[at + 1].casefold() if at + 1 < len(tokens) else ""
    if after in BE or after in MODALS or after == "of":
        return False
    # A bare verb needs a plural subject: "statements show", never "a statement show".
    return token in _SINGULAR or _is_plural(tokens[:at])


def _is_plural(subject: Sequence[str]) -> bool:
    head = subject[-1].casefold()
    for at, token in enumerate(subject):
        if token.casefold() in _PREPOSITIONS and at:
            head = subject[at - 1].casefold()
            break
    first = subject[0].casefold()
    if first in ("a", "an", "each", "every", "this", "another"):
        return False
    return (head.endswith("s") and not head.endswith("ss")) or head in ("people", "children", "you", "we")


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """Words that stand with a capital inside sentences more often than without one."""
    capital: Counter[str] = Counter()
    lower: Counter[str] = Counter()
    for text in texts:
        for word in text.split()[1:]:
            bare = word.strip(".,;:()!?\"'“”’")
            if bare[:1].isupper():
                capital[bare] += 1
            else:
                lower[bare] += 1
    return frozenset(word for word, n in capital.items() if n > lower[word[:1].lower() + word[1:]])


def _inside(subject: list[str], names: Collection[str]) -> str:
    first = subject[0]
    plain = first[1:].islower() or len(first) == 1
    keeps = first in names and first.casefold() not in _DETERMINERS
    return " ".join([first if keeps or not plain else first.lower(), *subject[1:]])

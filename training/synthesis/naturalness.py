"""Does a question read as if a person had written it? Rules of form that a broken question breaks.

A small model's questions fail in few ways: they repeat themselves, invent words, put a statement behind "What is", or
stop in the middle. Each is found by looking; likelihood under a model of that size finds them less often, since they
are what it thinks likely. How much is left that a person would not write is measured by reading (docs/log.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path

from generation.overlap import STOP_WORDS, content_words, numbers, words
from privacy.wordlists import words as word_list
from training.synthesis.clauses import finite_verbs

GROUNDED = 0.6
"""Share of a small model's content words that must stand in the sentence, its neighbours or heading: what it adds of
its own is mostly a habit ("the rule for people who want to …")."""
_OPEN_END = frozenset(
    word_list("a an the and or but that which who whose do does is are was were be if as than then so")
)
_STUTTER = re.compile(r"([^\W\d_])\1{3,}|\b([^\W\d_]+) \2\b", re.I)
_HABITS = re.compile(r"^what is the (?:connection|rule|procedure|way) (?:for|if|when|between)\b", re.I)
_DISAGREES = re.compile(r"^what is (?:.*[a-z]{2}(?<!ss)(?<!us)(?<!is)s\??$|the (?:last|first) \d+ )", re.I)
_NO_THING = re.compile(r"^what (?:is|are) (?:then|there|the same|as)\b|\b(?:as|than) (?:it|they)\??$", re.I)
_LONGEST_WORD = 28


def why_unnatural(question: str, *, known: Collection[str] = (), near: str | None = None) -> str:
    """What is wrong with it in a few words; empty when nothing is.

    Args:
        known: words that may be used without being in the list of common ones; empty: no word is held against it.
        near: what a small model has read, to hold its question against it; None for other writers.
    """
    asked = words(question)
    if _STUTTER.search(question) or any(len(word) > _LONGEST_WORD for word in asked):
        return "it stutters"
    if asked and asked[-1] in _OPEN_END:
        return "it stops in the middle"
    if (repeated := _repeated(asked)) and len(asked) < 20:
        return f"it says “{repeated}” twice"
    if known:
        strange = next((w for w in asked if w.isalpha() and not (w in known or w in STOP_WORDS or w in _common())), "")
        if strange:
            return f"nobody says “{strange[:30]}”"
    return "" if near is None else _of_small_models(question, near)


def _of_small_models(question: str, near: str) -> str:
    """What goes wrong in questions of a model that can only just write."""
    meant = content_words(question)
    checks = (
        (_is_statement(question), "a statement stands behind its first words"),
        (bool(_NO_THING.search(question) or _DISAGREES.match(question)), "its words do not fit together"),
        (bool(numbers(question) - numbers(near)), "a number comes from nowhere"),
        (bool(_HABITS.match(question)) and " and " not in question, "an empty phrase"),
        (len(meant & content_words(near)) < GROUNDED * len(meant), "its words come from nowhere"),
    )
    return next((why for broken, why in checks if broken), "")


def _repeated(asked: tuple[str, ...]) -> str:
    counts = Counter(word for word in asked if word not in STOP_WORDS and not any(c.isdigit() for c in word))
    return next((word for word, n in counts.items() if n > 1), "")


def _is_statement(question: str) -> bool:
    """“What is the Plan tab holds the tariff?”: a second finite verb with nothing that joins it."""
    match = re.match(r"^(?:what|who|where|when|how) (is|are|was|were|do|does|can) (.+?)\??$", question, re.I)
    if match is None:
        return False
    rest = match.group(2).split()
    verbs = finite_verbs(rest)
    joined = {"that", "which", "who", "whose", "if", "when", "while", "where", "how", "what", "because", "and"}
    return any(not joined & {word.casefold() for word in rest[:at]} for at in verbs)


@cache
def _common() -> frozenset[str]:
    import privacy

    folder = Path(privacy.__file__).parent / "data"
    return frozenset(
        word.strip().casefold()
        for name in ("common_words.txt", "everyday_words.txt")
        for word in (folder / name).read_text(encoding="utf-8").splitlines()
    )

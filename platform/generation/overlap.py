"""What two texts have in common, by words and numbers: the small measures that alignment, filters and guards share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:[.,:'’-]\d+)*", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")

# Function words say nothing about what a sentence is about. Short on purpose: a longer list starts to eat meaning.
STOP_WORDS = frozenset(
    """a an the and or but if of to in on at by for from with as is are was were be been being it its this that these
    those i you he she we they my your our their me us them do does did have has had can could may might must shall
    should will would not no so than then there here what which who whom whose when where why how any all some more most
    about into over under up down out off just only also very too""".split()  # noqa: SIM905 - sixty literals would be no clearer
)


@lru_cache(maxsize=8192)
def words(text: str) -> tuple[str, ...]:
    """Words in order, folded; numbers keep their separators ("27.4", "00:30")."""
    return tuple(word.replace("’", "'") for word in _WORD.findall(text.casefold()))


@lru_cache(maxsize=8192)
def content_words(text: str) -> frozenset[str]:
    """Words that carry meaning, without plural and past endings, so that "charged" meets "charges"."""
    return frozenset(_stem(word) for word in words(text) if word not in STOP_WORDS)


@lru_cache(maxsize=8192)
def numbers(text: str) -> frozenset[str]:
    """Every number as written, thousands separators aside."""
    return frozenset(_THOUSANDS.sub("", found) if "," in found else found for found in _NUMBER.findall(text))


def ngrams(text: str, n: int) -> frozenset[tuple[str, ...]]:
    sequence = words(text)
    return frozenset(sequence[i : i + n] for i in range(len(sequence) - n + 1))


def coverage(claim: str, source: str) -> float:
    """Share of the claim's content words that stand in the source, 0 … 1; a claim without content words is covered."""
    claimed = content_words(claim)
    return len(claimed & content_words(source)) / len(claimed) if claimed else 1.0


def ngram_recall(text: str, source: str, n: int = 4) -> float:
    """Share of the text's n-grams that stand in the source (ChatQA's test of "the answer is in there": > 0.5 it is,
    < 0.1 it is not; Liu et al. 2024, arXiv 2401.10225). Texts shorter than n words fall back to their words."""
    grams = ngrams(text, n)
    if not grams:
        return coverage(text, source)
    said = _in_a_row(words(source))  # looking for each is a fraction of making a set of all that the source has
    return sum(_in_a_row(gram) in said for gram in grams) / len(grams)


def _in_a_row(sequence: Sequence[str]) -> str:
    """One text in which a run of words is found as whole words: no word holds a space."""
    return f" {' '.join(sequence)} "


def supports(source: str, claim: str, threshold: float = 0.6) -> bool:
    """Lexical support: enough of the claim's words and every one of its numbers stand in the source."""
    return numbers(claim) <= numbers(source) and coverage(claim, source) >= threshold


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word

"""Which sentence of which passage a citation means.

Frontends log answers with ``[n]`` behind a sentence, where n is the rank of a passage. What a reader wants to see, and
what training learns from, is the sentence: the one of that passage that shares most words with what was said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generation.prompts import split_sentences

_MARKS = re.compile(r"((?:\s*\[\d{1,3}\])+)")
_NUMBER = re.compile(r"\[(\d{1,3})\]")
_WORD = re.compile(r"\w+")
_MIN_SHARE = 0.25
"""Of the words said: with fewer in common no sentence is named, only the passage."""


@dataclass(frozen=True)
class Citation:
    """``sentence`` is None when the passage was cited but none of its sentences is like what was said."""

    rank: int
    sentence: int | None


@dataclass(frozen=True)
class Segment:
    """A stretch of the answer and what stands cited behind it."""

    text: str
    citations: Sequence[Citation]


def segments(response: str, passages: Mapping[int, str], known: Sequence[Sequence[int]] = ()) -> list[Segment]:
    """The answer cut behind its citations.

    Args:
        passages: text by rank. A number that names no passage stays text.
        known: [[rank, sentence], …] when the citations are known to the sentence; then only those are chosen from.
    """
    found: list[Segment] = []
    text = ""
    for piece in _MARKS.split(response):
        ranks = [int(n) for n in _NUMBER.findall(piece)] if _MARKS.fullmatch(piece) else []
        cited = [rank for rank in dict.fromkeys(ranks) if rank in passages]
        if not cited:
            text += piece
            continue
        citations = [Citation(rank, _sentence(text, passages[rank], rank, known)) for rank in cited]
        found.append(Segment(text, citations))
        text = ""
    if text.strip():
        found.append(Segment(text, ()))
    return found


def sentence_references(response: str, passages: Mapping[int, str]) -> list[list[int]]:
    """[[rank, sentence], …] of the citations in a logged answer, in order, each once."""
    found: list[list[int]] = []
    for segment in segments(response, passages):
        for citation in segment.citations:
            reference = [citation.rank, citation.sentence]
            if citation.sentence is not None and reference not in found:
                found.append([citation.rank, citation.sentence])
    return found


def _sentence(said: str, passage: str, rank: int, known: Sequence[Sequence[int]]) -> int | None:
    sentences = split_sentences(passage)
    places = [s for r, s in known if r == rank and s < len(sentences)] or list(range(len(sentences)))
    if known and len(places) == 1:
        return places[0]
    words = set(_WORD.findall(said.casefold()))
    best = max(places, key=lambda place: (_shared(words, sentences[place]), -place), default=None)
    return best if best is not None and _shared(words, sentences[best]) >= _MIN_SHARE else None


def _shared(words: set[str], sentence: str) -> float:
    """Share of the words said that the sentence holds, longer words and numbers counting more."""
    if not words:
        return 0.0
    theirs = set(_WORD.findall(sentence.casefold()))
    weight = {word: 2.0 if word[0].isdigit() else min(len(word), 8) / 4 for word in words}
    return sum(weight[word] for word in words & theirs) / sum(weight.values())

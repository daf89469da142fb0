"""From an answer with ``[n]`` citations to sentence references.

People and chatbots cite passages; training needs the sentence. Each sentence of the answer is given the sentence of the
cited passages (of all passages where it cites none) that covers most of its words and *all* its numbers; below the
threshold it stays without a reference and counts as unsupported.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TypedDict

from generation.overlap import coverage, supports
from generation.prompts import PromptPassage, SentenceRef, split_sentences

SUPPORT = 0.6
_MARKS = re.compile(r"\s*((?:\[\d{1,3}\]\s*)+)")


class AlignedSentence(TypedDict):
    """``refs``: [[passage rank, sentence index], …]; empty when no source sentence supports the text."""

    text: str
    refs: list[list[int]]


def split_cited(response: str) -> list[tuple[str, list[int]]]:
    """Sentences of an answer, without marks, each with the passages cited behind it."""
    # Marks stand before or after the full stop: "… £35 [1]." and "… £35. [1]" are both read.
    text = re.sub(r"((?:\s*\[\d{1,3}\])+)\s*([.!?])", r"\2\1", response)
    out: list[tuple[str, list[int]]] = []
    start = 0
    for match in _MARKS.finditer(text):
        ranks = [int(n) for n in re.findall(r"\d+", match.group(1))]
        before = split_sentences(text[start : match.start()])
        out += [(sentence, []) for sentence in before[:-1]]
        if before:
            out.append((before[-1], ranks))
        elif out:
            out[-1][1].extend(ranks)
        start = match.end()
    out += [(sentence, []) for sentence in split_sentences(text[start:])]
    return out


def align_sentences(response: str, passages: Sequence[PromptPassage]) -> list[AlignedSentence]:
    """The answer's sentences with the source sentence of each."""
    sources = _Split(passages)
    return [
        {"text": text, "refs": [[ref.rank, ref.sentence] for ref in _find(text, ranks, sources)]}
        for text, ranks in split_cited(response)
    ]


class _Split:
    """The sentences of passages by rank; of most answers only those of a cited one are looked at."""

    def __init__(self, passages: Sequence[PromptPassage]) -> None:
        self._texts = {passage.rank: passage.text for passage in passages}

    @property
    def ranks(self) -> Collection[int]:
        return self._texts.keys()

    def of(self, rank: int) -> list[str]:
        return split_sentences(self._texts[rank])


def _find(text: str, ranks: Sequence[int], sources: _Split) -> list[SentenceRef]:
    cited = [rank for rank in ranks if rank in sources.ranks]
    for among in (cited, sources.ranks) if cited else (sources.ranks,):
        scored = [
            (-coverage(text, sentence), len(sentence), SentenceRef(rank, index))
            for rank in among
            for index, sentence in enumerate(sources.of(rank))
            if supports(sentence, text, SUPPORT)
        ]
        if scored:
            return [min(scored)[2]]  # of equally covering sentences the shortest: it says least else
    return []

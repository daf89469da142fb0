"""One turn as the labelling and adjudication pages show it. Plain values only: templates escape them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capture.models import Retrieval, Turn
from generation.prompts import split_sentences

SUPPORT_SHARE = 0.5
FOLD_AFTER = 700
"""Characters of a passage that show before it folds."""
_CITATION = re.compile(r"\[(\d{1,3})\]")
_WORD = re.compile(r"\w+")
_BULLET = re.compile(r"^\s*[-*•]\s+")


@dataclass(frozen=True)
class AnswerPart:
    """A stretch of text, or a citation of the passage ``rank`` (``known`` when the turn has it)."""

    text: str
    rank: int | None = None
    known: bool = True


@dataclass(frozen=True)
class Sentence:
    text: str
    supports: bool
    """The answer points at it, or (where the log names no sentences) it holds most words of an answer sentence."""
    offered: bool
    """Retrieval ranked it among the evidence."""


@dataclass(frozen=True)
class Line:
    sentences: tuple[Sentence, ...]
    bullet: bool = False


@dataclass(frozen=True)
class ContextView:
    rank: int
    title: str
    source: str
    score: float | None
    lines: tuple[Line, ...]
    folds: bool
    cited: bool


@dataclass(frozen=True)
class TurnView:
    turn: Turn
    history: tuple[tuple[str, str], ...]
    """(role, text), oldest first."""
    answer: tuple[AnswerPart, ...]
    contexts: tuple[ContextView, ...]


def present(turn: Turn) -> TurnView:
    """``turn`` should come from `TurnQuerySet.with_contexts`: then no query runs here."""
    retrievals = list(turn.retrievals.all())
    pairs = {(int(pair[0]), int(pair[1])) for pair in turn.citations if len(pair) == 2}
    if not pairs and not turn.declined:
        pairs = _lexical_support(turn.response, {r.rank: split_sentences(r.passage.text) for r in retrievals})
    ranks = {retrieval.rank for retrieval in retrievals}
    answer = answer_parts(turn.response, ranks)
    cited = {part.rank for part in answer if part.rank}
    contexts = tuple(_context(retrieval, pairs, cited) for retrieval in retrievals)
    history = tuple((message.get("role", ""), message.get("content", "")) for message in turn.history)
    return TurnView(turn, history, answer, contexts)


def answer_parts(text: str, ranks: set[int]) -> tuple[AnswerPart, ...]:
    """The text cut at its [n] citations."""
    parts = []
    start = 0
    for match in _CITATION.finditer(text):
        if match.start() > start:
            parts.append(AnswerPart(text[start : match.start()]))
        rank = int(match[1])
        parts.append(AnswerPart(match[0], rank, rank in ranks))
        start = match.end()
    if start < len(text):
        parts.append(AnswerPart(text[start:]))
    return tuple(parts)


def _lexical_support(answer: str, passages: Mapping[int, Sequence[str]]) -> set[tuple[int, int]]:
    """For each sentence of the answer, the passage sentence that holds most of its words, if that is at least half of
    them: a hint for the eye, not a judgement."""
    hints: set[tuple[int, int]] = set()
    for sentence in split_sentences(_CITATION.sub(" ", answer)):
        words = _words(sentence)
        shares = {
            (rank, i): len(words & _words(text)) / len(words)
            for rank, sentences in passages.items()
            for i, text in enumerate(sentences)
            if words
        }
        best = max(shares, key=shares.__getitem__, default=None)
        if best is not None and shares[best] >= SUPPORT_SHARE:
            hints.add(best)
    return hints


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if len(word) > 2 or word.isdigit()}


def _context(retrieval: Retrieval, pairs: set[tuple[int, int]], cited: set[int]) -> ContextView:
    passage = retrieval.passage
    offered = {int(row[1]) for row in retrieval.evidence if len(row) >= 2}
    pointed = {sentence for rank, sentence in pairs if rank == retrieval.rank}
    return ContextView(
        rank=retrieval.rank,
        title=passage.title or retrieval.source or f"Passage {retrieval.rank}",
        source=retrieval.source,
        score=retrieval.score,
        lines=_lines(passage.text, pointed, offered),
        folds=len(passage.text) > FOLD_AFTER,
        cited=retrieval.rank in cited,
    )


def _lines(text: str, pointed: set[int], offered: set[int]) -> tuple[Line, ...]:
    """The passage line by line. Sentences are counted as `split_sentences` counts them over the whole text (it works
    line by line), so stored sentence indexes fit."""
    lines: list[Line] = []
    number = 0
    for raw in text.splitlines():
        sentences: Sequence[str] = split_sentences(raw)
        shown = tuple(Sentence(s, number + i in pointed, number + i in offered) for i, s in enumerate(sentences))
        number += len(sentences)
        if shown:
            lines.append(Line(shown, bool(_BULLET.match(raw))))
    return tuple(lines)

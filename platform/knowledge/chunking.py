"""Sections cut into chunks that the embedder reads whole.

A chunk never crosses a section, keeps whole blocks (tables, lists, paragraphs) together where they fit, and stays
within the embedder's window *with* its headings, because that is the text that is embedded; MiniLM silently ignores
what lies behind its 256th word piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from generation.prompts import split_sentences
from knowledge.sections import Section

MAX_TOKENS = 250
"""Word pieces of headings and text together: the window of 256 less the two special tokens, and a little air."""
TARGET_TOKENS = 170
"""Blocks are packed up to here: smaller chunks say one thing, and their vectors say it too."""
CHUNKER = f"sections-1/{TARGET_TOKENS}/{MAX_TOKENS}"
"""Part of the retrieval configuration's digest."""

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class ChunkText:
    headings: tuple[str, ...]
    text: str
    tokens: int


def embedded_text(headings: Sequence[str], text: str) -> str:
    """What a chunk's vector is made of."""
    return f"{' › '.join(headings)}\n{text}"


def chunk_sections(sections: Sequence[Section], count_tokens: CountTokens) -> list[ChunkText]:
    """Chunks in reading order; every word of the sections is in exactly one of them."""
    return [chunk for section in sections for chunk in _section_chunks(section, count_tokens)]


def _section_chunks(section: Section, count: CountTokens) -> Iterator[ChunkText]:
    headings = tuple(section.headings)
    room = MAX_TOKENS - count(" › ".join(headings)) - 2
    if room < MAX_TOKENS // 3:  # absurdly long headings: keep the last one, cut
        headings = (headings[-1][:120],)
        room = MAX_TOKENS - count(headings[0]) - 2
    parts: list[str] = []
    used = 0
    for block in section.blocks:
        for piece in _pieces(block, room, count):
            tokens = count(piece)
            if parts and (used + tokens > room or used >= TARGET_TOKENS or used + tokens > TARGET_TOKENS + 40):
                yield ChunkText(headings, "\n".join(parts), used)
                parts, used = [], 0
            parts.append(piece)
            used += tokens
    if parts:
        yield ChunkText(headings, "\n".join(parts), used)


def _pieces(block: Sequence[str], room: int, count: CountTokens) -> Iterator[str]:
    """The block whole if it fits, else its lines, else its sentences, else runs of words."""
    whole = "\n".join(block)
    if count(whole) <= room:
        yield whole
        return
    for line in block:
        for sentence in [line] if count(line) <= room else split_sentences(line):
            if count(sentence) <= room:
                yield sentence
            else:
                yield from _word_runs(sentence, room, count)


def _word_runs(sentence: str, room: int, count: CountTokens) -> Iterator[str]:
    run: list[str] = []
    used = 0
    for word in _short_words(sentence):
        tokens = count(word)
        if run and used + tokens > room:
            yield " ".join(run)
            run, used = [], 0
        run.append(word)
        used += tokens
    if run:
        yield " ".join(run)


def _short_words(sentence: str) -> Iterator[str]:
    """Words, an endless one (base64, a long key) in pieces of 60 characters, which no tokenizer makes over 120 of."""
    for word in sentence.split():
        yield from (word[i : i + 60] for i in range(0, len(word), 60))

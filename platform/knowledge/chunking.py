"""Sections cut into chunks that the embedder reads whole.

A chunk never crosses a section, keeps whole blocks (tables, lists, paragraphs) together where they fit, and stays
within the embedder's window *with* its headings, because that is the text that is embedded; MiniLM silently ignores
what lies behind its 256th word piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from generation.prompts import split_sentences
from knowledge.sections import Section

MAX_TOKENS = 250
"""Word pieces of headings and text together: the window of 256 less the two special tokens, and a little air."""
TARGET_TOKENS = 170
"""Blocks are packed up to here: smaller chunks say one thing, and their vectors say it too."""
SLACK_TOKENS = 40
"""By so much the last block of a chunk may go beyond."""
CHUNKER = f"sections-2/{TARGET_TOKENS}/{MAX_TOKENS}"
"""Part of the retrieval configuration's digest."""
_NEXT_CELL = re.compile(r"; (?=[^;:]{1,80}: )")

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class ChunkText:
    headings: tuple[str, ...]
    text: str
    tokens: int


def embedded_text(headings: Sequence[str], text: str) -> str:
    """What a chunk's vector is made of."""
    return f"{' › '.join(headings)}\n{text}"


def chunk_sections(
    sections: Sequence[Section], count_tokens: CountTokens, *, window: int | None = None, most: int | None = None
) -> list[ChunkText]:
    """Chunks in reading order; every word of the sections is in one of them, and in no other but for the column names
    and first cells that are said again where a row of a table is cut.

    Args:
        window: word pieces that the embedder reads, its special tokens included; 256 when not given.
        most: stop after so many chunks.
    """
    fitting = MAX_TOKENS if window is None else min(MAX_TOKENS, window - 6)
    chunks = (chunk for section in sections for chunk in _section_chunks(section, count_tokens, fitting))
    return list(islice(chunks, most))


def _section_chunks(section: Section, count: CountTokens, fitting: int) -> Iterator[ChunkText]:
    target = min(TARGET_TOKENS, fitting * TARGET_TOKENS // MAX_TOKENS)
    headings = tuple(section.headings)
    room = fitting - count(" › ".join(headings)) - 2
    if room < fitting // 3:  # absurdly long headings: keep the last one, cut
        headings = (_cut(headings[-1][:120], fitting // 2, count),)
        room = fitting - count(headings[0]) - 2
    parts: list[str] = []
    used = 0
    for block in _led_in(section.blocks, room, count):
        for piece in _pieces(block, room, count):
            tokens = count(piece)
            if parts and (used + tokens > room or used >= target or used + tokens > target + SLACK_TOKENS):
                yield ChunkText(headings, "\n".join(parts), used)
                parts, used = [], 0
            parts.append(piece)
            used += tokens
    if parts:
        yield ChunkText(headings, "\n".join(parts), used)


def _led_in(blocks: Sequence[Sequence[str]], room: int, count: CountTokens) -> Iterator[Sequence[str]]:
    """Blocks, a list or table together with the line before it that ends in a colon, where both fit: "You need:" at
    the end of one chunk and the list in the next would be of use to nobody."""
    held: Sequence[str] | None = None
    for block in blocks:
        if held is not None:
            both = [*held, *block]
            if len(block) > 1 and count("\n".join(both)) <= room:
                yield both
                held = None
                continue
            yield held
        held = block if len(block) == 1 and block[0].endswith(":") else None
        if held is None:
            yield block
    if held is not None:
        yield held


def _pieces(block: Sequence[str], room: int, count: CountTokens) -> Iterator[str]:
    """The block whole if it fits, else its lines, else their cells or sentences, else runs of words."""
    whole = "\n".join(block)
    if count(whole) <= room:
        yield whole
        return
    for line in block:
        if count(line) <= room:
            yield line
        elif len(block) > 1 and len(cells := _NEXT_CELL.split(line)) > 1:
            yield from _row_pieces(cells, room, count)
        else:
            for sentence in split_sentences(line):
                if count(sentence) <= room:
                    yield sentence
                else:
                    yield from _word_runs(sentence, room, count)


def _row_pieces(cells: Sequence[str], room: int, count: CountTokens) -> Iterator[str]:
    """A row that does not fit, cut between its cells. Its first cell, which mostly names it, is said in each piece, and
    the name of its column in each piece of a cell that does not fit by itself."""
    first = cells[0] if count(cells[0]) <= room // 4 else ""
    lead = count(f"{first}; ") if first else 0
    run: list[str] = []
    used = lead
    for cell in cells[1:] if first else cells:
        name, colon, rest = cell.partition(": ")
        prefix = f"{name}{colon}" if colon and count(name) <= room // 4 else ""
        left = room - lead - count(prefix)
        fits = count(f"{cell}; ") <= room - lead
        parts = [cell] if fits else [prefix + part for part in _word_runs(rest if prefix else cell, left, count)]
        for part in parts:
            tokens = count(f"{part}; ")
            if run and used + tokens > room:
                yield "; ".join([first, *run] if first else run)
                run, used = [], lead
            run.append(part)
            used += tokens
    if run:
        yield "; ".join([first, *run] if first else run)


def _word_runs(sentence: str, room: int, count: CountTokens) -> Iterator[str]:
    run: list[str] = []
    used = 0
    for word in _short_words(sentence, room, count):
        tokens = count(word)
        if run and used + tokens > room:
            yield " ".join(run)
            run, used = [], 0
        run.append(word)
        used += tokens
    if run:
        yield " ".join(run)


def _short_words(sentence: str, room: int, count: CountTokens) -> Iterator[str]:
    """Words, an endless one (base64, a long key, a script without spaces) in pieces of at most 60 characters that fit:
    a letter may be three word pieces."""
    for word in sentence.split():
        for start in range(0, len(word), 60):
            piece = word[start : start + 60]
            size = len(piece)
            while size > 1 and count(piece[:size]) > room:
                size //= 2
            yield from (piece[i : i + size] for i in range(0, len(piece), size))


def _cut(heading: str, room: int, count: CountTokens) -> str:
    while count(heading) > room:
        heading = heading[: len(heading) // 2]
    return heading

"""Lines of a PDF to paragraphs, lists and headings.

What is told by size, weight and place: a line in larger letters, or a short bold one, is a heading; what stands at the
top or bottom of most pages is none of the text; a wider gap, a bullet, or a line that ends early ends a paragraph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from knowledge.sections import Section, SectionBuilder

LARGER = 1.12
"""Times the size of the text from which on a line is a heading."""
MAX_HEADING_CHARS = 150
MAX_LEVELS = 4
REPEATED = 0.5
"""Share of the pages on which a line at the edge stands to be taken for a running header."""
FITTING = 0.8
"""Share of the width of a paragraph up to which a line could have held another word."""
_BULLET = re.compile(r"^(?:[•‣◦▪●○∙·–—*\-]|\(?(?:\d{1,2}|[a-z])[.)])\s+(?=\S)")
_PAGE_NUMBER = re.compile(r"^\W*(?:page|seite|p\.)?\s*\d{1,5}(?:\s*(?:of|/|von|–|-)\s*\d{1,5})?\W*$", re.IGNORECASE)
_ENDS = (".", "!", "?", ":", ";", "…")
_SENTENCE_ENDS = (".", "!", "?", "…")


@dataclass(frozen=True)
class Line:
    """``size`` in points as shown on the page; ``y`` from its bottom."""

    text: str
    size: float
    bold: bool = False
    y: float = 0.0


def sections_of(pages: Sequence[Sequence[Line]], *, title: str) -> list[Section]:
    """Sections of the whole document. ``title``: where no single largest line at its beginning is one."""
    kept = _without_edges(pages)
    body = _body_size(kept)
    levels = _levels(kept, body)
    builder = SectionBuilder(title)
    sections: list[Section] = []
    top = [line for page in kept for line in page if levels.get(round(line.size, 1)) == 1]
    if len(top) != 1:  # several parts, or none: all of them belong to the document
        sections += builder.heading(0, title)
    paragraphs = _Paragraphs(builder, [line for page in kept for line in page if round(line.size, 1) <= body])
    bare: int | None = None  # level of a heading that has no text yet
    for page in kept:
        for line in _joined_headings(page, levels):
            level = _level(line, levels, body)
            if level is None or (level == bare and level not in levels.values()):
                # Of two bold lines the second is no heading but, say, the first row of a table.
                paragraphs.add(line)
                bare = None
            else:
                paragraphs.end()
                sections += builder.heading(level, line.text)
                bare = level
        paragraphs.page_ends()
    paragraphs.end()
    sections += builder.end()
    return sections


def _without_edges(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Without running headers, footers and page numbers: of the first and last two lines of each page."""
    seen: Counter[str] = Counter()
    for page in pages:
        seen.update({_pattern(line.text) for line in [*page[:2], *page[-2:]]})
    often = max(4.0, REPEATED * len(pages))

    def is_edge(line: Line, outermost: bool) -> bool:
        if seen[_pattern(line.text)] >= often:
            return True
        return len(pages) > 1 and outermost and bool(_PAGE_NUMBER.match(line.text))

    def text_of(page: Sequence[Line]) -> list[Line]:
        """From the edges inwards, and never all of it: pages that repeat themselves are text."""
        start, end = 0, len(page)
        while start < min(2, end) and is_edge(page[start], start == 0):
            start += 1
        while end > max(len(page) - 2, start) and is_edge(page[end - 1], end == len(page)):
            end -= 1
        return list(page[start:end] or page)

    return [text_of(page) for page in pages]


def _pattern(text: str) -> str:
    return re.sub(r"\d+", "#", text.casefold())


def _body_size(pages: Sequence[Sequence[Line]]) -> float:
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page:
            sizes[round(line.size, 1)] += len(line.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _levels(pages: Sequence[Sequence[Line]], body: float) -> dict[float, int]:
    """Size → level of the headings of that size, the largest first."""
    sizes = {
        round(line.size, 1)
        for page in pages
        for line in page
        if line.size > body * LARGER and len(line.text) <= MAX_HEADING_CHARS
    }
    return {size: min(place, MAX_LEVELS) for place, size in enumerate(sorted(sizes, reverse=True), start=1)}


def _level(line: Line, levels: dict[float, int], body: float) -> int | None:
    if len(line.text) > MAX_HEADING_CHARS or not re.search(r"\w", line.text):
        return None
    if (level := levels.get(round(line.size, 1))) is not None:
        return level
    is_short = len(line.text) <= 80 and not line.text.endswith((*_ENDS, ","))
    if line.bold and is_short and line.size >= body * 0.98 and not _BULLET.match(line.text):
        return max(levels.values(), default=0) + 1
    return None


def _joined_headings(page: Sequence[Line], levels: dict[float, int]) -> Iterator[Line]:
    """A heading that goes over two lines is one."""
    held: Line | None = None
    for line in page:
        same = held is not None and round(held.size, 1) == round(line.size, 1) in levels
        if held is not None and same and 0 <= held.y - line.y < 2 * line.size and len(held.text) > 20:
            held = Line(f"{held.text} {line.text}", line.size, line.bold, line.y)
            continue
        if held is not None:
            yield held
        held = line
    if held is not None:
        yield held


class _Paragraphs:
    """Lines of text put together again."""

    def __init__(self, builder: SectionBuilder, text: Sequence[Line]) -> None:
        self._builder = builder
        self._run: list[str] = []
        self._items: list[str] = []
        self._last: Line | None = None
        self._new_page = False
        self._width = median(map(len, (line.text for line in text))) if text else 0
        gaps = [a.y - b.y for a, b in pairwise(text) if 0 < a.y - b.y < 4 * max(a.size, 1)]
        self._leading = median(gaps) if gaps else 0.0

    def add(self, line: Line) -> None:
        bullet = _BULLET.match(line.text)
        if bullet:
            self._end_run()
            self._items.append(line.text[bullet.end() :] if not line.text[0].isalnum() else line.text)
        elif self._starts_anew(line):
            self.end()
            self._run = [line.text]
        elif self._items:
            self._items[-1] = _join(self._items[-1], line.text)
        else:
            self._run.append(line.text)
        self._last, self._new_page = line, False

    def _starts_anew(self, line: Line) -> bool:
        last = self._last
        if last is None:
            return True
        ended = last.text.endswith(_ENDS)
        if self._new_page:
            return ended
        if self._leading and not 0 <= last.y - line.y <= 1.4 * self._leading:
            return True
        return ended and bool(self._items) and len(last.text) < 0.75 * self._width

    def page_ends(self) -> None:
        self._new_page = True

    def end(self) -> None:
        self._end_run()
        if self._items:
            self._builder.block(self._items)
            self._items = []
        self._last = None

    def _end_run(self) -> None:
        block: list[str] = []
        for piece in _pieces(self._run):
            if block and block[-1].endswith(_SENTENCE_ENDS):
                self._builder.block(block)
                block = []
            block.append(piece)
        if block:
            self._builder.block(block)
        self._run = []


def _pieces(run: Sequence[str]) -> Iterator[str]:
    """Lines of equal distance, joined where they were broken for want of room: where the next word would have fitted
    the break was meant, as between the items of a list whose bullets are drawn and not written."""
    width = max(map(len, run), default=0)
    held = ""
    for before, line in pairwise(["", *run]):
        meant = len(before) + 1 + len(line.split(maxsplit=1)[0]) < FITTING * width
        if held and meant:
            yield held
            held = line
        else:
            held = _join(held, line) if held else line
    if held:
        yield held


def _join(before: str, after: str) -> str:
    """A word that was cut at the end of a line becomes one again."""
    if len(before) > 1 and before.endswith(("-", "\u00ad")) and before[-2].isalpha() and after[:1].islower():
        return before[:-1] + after
    return f"{before} {after}"

"""A document as sections: headings from the title down, and lines that can each stand alone.

Answers point to sentences, so what is kept of the markup is what makes a line understandable by itself: a table row
becomes ``Column: cell; Column: cell``, a list item its own line. Everything else of the markup goes.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MAX_HEADING = 300


class UnreadableDocument(ValueError):
    """The bytes are not the text they claim to be; the message is a sentence for the person who loads it."""


@dataclass
class Section:
    """``headings``: title first. ``blocks``: each a paragraph, a list or a table, as a list of lines."""

    headings: list[str]
    blocks: list[list[str]] = field(default_factory=list)


def decode(data: bytes) -> str:
    """UTF-8 (with or without mark), UTF-16 with its mark or, failing that, Windows-1252, in which most old exports are.

    Raises:
        UnreadableDocument: binary data.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with contextlib.suppress(UnicodeDecodeError):
            if "\x00" not in (text := data.decode("utf-16")):
                return text
    if b"\x00" in data:
        raise UnreadableDocument("This file is not text: it holds NUL bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    if text.count("\ufffd") > max(2, len(text) // 200):
        raise UnreadableDocument("This file is neither UTF-8 nor Windows-1252 text.")
    return text


def read_sections(text: str, media_type: str, *, fallback_title: str) -> list[Section]:
    """Sections of a document in order.

    Raises:
        UnreadableDocument: nothing to read in it, or a type that is not supported.
    """
    if media_type == "text/markdown":
        sections = list(_markdown(text, fallback_title))
    elif media_type == "text/html":
        from knowledge.conversion.html import html_sections

        sections = list(html_sections(text, title=fallback_title))
    elif media_type == "text/plain":
        blocks = [[clean(p)] for p in re.split(r"\n\s*\n", text) if clean(p)]
        sections = [Section([fallback_title], blocks)]
    else:
        raise UnreadableDocument(f"Files of type {media_type} cannot be read; use Markdown, text or HTML.")
    sections = [s for s in sections if s.blocks]
    if not sections:
        raise UnreadableDocument("There is no text in this file.")
    return sections


def clean(text: str) -> str:
    """On one line, without spaces at its ends."""
    return " ".join(text.split())


class SectionBuilder:
    """Collects blocks under the headings that are open at the moment. Level 0 is above all others."""

    def __init__(self, fallback_title: str) -> None:
        self._open: list[tuple[int, str]] = []
        self._fallback = fallback_title
        self._section = Section([fallback_title])

    def heading(self, level: int, text: str) -> Iterator[Section]:
        yield self._section
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, clean(text)[:MAX_HEADING]))
        self._section = Section([t for _, t in self._open if t] or [self._fallback])

    def block(self, lines: Sequence[str]) -> None:
        kept = [line for line in map(clean, lines) if line]
        if kept:
            self._section.blocks.append(kept)

    def end(self) -> Iterator[Section]:
        yield self._section


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows (the first is the header) as sentences: ``Tariff: Evening; Unit rate: 19 p``."""
    if len(rows) < 2:
        return [", ".join(filter(None, row)) for row in rows]
    header = rows[0]
    lines = []
    for row in rows[1:]:
        cells = [f"{h}: {c}" if h else c for h, c in zip(header, row, strict=False) if c]
        lines.append("; ".join(cells))
    return lines


def _markdown(text: str, fallback_title: str) -> Iterator[Section]:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    builder = SectionBuilder(fallback_title)
    for node in SyntaxTreeNode(parser.parse(text)).children:
        if node.type == "heading":
            yield from builder.heading(int(node.tag[1]), _inline(node))
        elif node.type in ("bullet_list", "ordered_list"):
            builder.block(list(_list_items(node)))
        elif node.type == "table":
            rows = [[clean(_inline(cell)) for cell in row.children] for part in node.children for row in part.children]
            builder.block(table_lines(rows))
        elif node.type in ("fence", "code_block"):
            builder.block(node.content.splitlines())
        elif node.type != "hr":
            builder.block(_inline(node).splitlines() if node.type == "blockquote" else [_inline(node)])
    yield from builder.end()


def _list_items(node: object) -> Iterator[str]:
    for item in node.children:  # type: ignore[attr-defined]
        own = [child for child in item.children if child.type not in ("bullet_list", "ordered_list")]
        yield clean(" ".join(_inline(child) for child in own))
        for child in item.children:
            if child.type in ("bullet_list", "ordered_list"):
                yield from _list_items(child)


def _inline(node: object) -> str:
    """The text of a node without its marks; links keep their words, images their description."""
    if node.type in ("text", "code_inline", "fence", "code_block"):  # type: ignore[attr-defined]
        return str(node.content)  # type: ignore[attr-defined]
    if node.type in ("softbreak", "hardbreak"):  # type: ignore[attr-defined]
        return "\n" if node.type == "hardbreak" else " "  # type: ignore[attr-defined]
    if node.type == "paragraph":  # type: ignore[attr-defined]
        return "".join(_inline(child) for child in node.children) + "\n"  # type: ignore[attr-defined]
    return "".join(_inline(child) for child in node.children)  # type: ignore[attr-defined]

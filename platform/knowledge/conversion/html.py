"""HTML: what is read of a page is its text; what leads around it (navigation, forms) is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knowledge.conversion.shapes import Converted
from knowledge.sections import Section, SectionBuilder, UnreadableDocument, clean, decode, table_lines

_DROPPED = frozenset(
    {"header", "script", "style", "noscript", "template", "nav", "footer", "form", "iframe", "svg", "head", "title",
     "select", "button", "dialog"}
)  # fmt: skip
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_CELLS = frozenset({"td", "th", "tr"})
_LISTS = frozenset({"ul", "ol", "menu"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl", "dt",
     "fieldset", "figcaption", "figure", "header", "hgroup", "html", "li", "main", "p", "section", "summary", "table",
     "tbody", "td", "tfoot", "th", "thead", "tr"}
)  # fmt: skip
"""Elements that begin on a line of their own; all others are parts of a line."""


def read_html(data: bytes, *, title: str) -> Converted:
    """Raises:
    UnreadableDocument: not text, or no text in it.
    """
    text = decode(data)
    sections = [section for section in html_sections(text, title=title) if section.blocks]
    if not sections:
        raise UnreadableDocument("There is no text in this file.")
    return Converted(text, sections)


def html_sections(text: str, *, title: str) -> Iterator[Section]:
    """Every text of the body is in one section, in order; a list or table is one block."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(text, "html.parser")
    named = clean(soup.title.get_text(" ")) if soup.title else ""
    yield from _Walk(SectionBuilder(named or title)).read(soup)


class _Walk:
    """Goes through the tree with a stack, because a page may be nested deeper than Python calls."""

    def __init__(self, builder: SectionBuilder) -> None:
        self.builder = builder
        self._line: list[str] = []

    def read(self, root: Any) -> Iterator[Section]:
        stack: list[tuple[Iterator[Any], bool]] = [(iter(root.children), False)]
        while stack:
            node = next(stack[-1][0], None)
            if node is None:
                if stack.pop()[1]:
                    self._end_line()
            elif node.name is None:
                if type(node).__name__ == "NavigableString":  # no comments, declarations, or what scripts hold
                    self._line.append(str(node))
            elif headings := _headings(node):
                for heading in headings:
                    self._end_line()
                    yield from self.builder.heading(int(heading.name[1]), _text(heading))
            elif not _is_dropped(node) and not self._take(node):
                if node.name in _BLOCKS:
                    self._end_line()
                stack.append((iter(node.children), node.name in _BLOCKS))
        self._end_line()
        yield from self.builder.end()

    def _take(self, node: Any) -> bool:
        """Whether it was taken whole."""
        if node.name == "br":
            self._line.append(" ")
            return True
        block = _whole(node)
        if block:
            self._end_line()
            self.builder.block(block)
        return bool(block)

    def _end_line(self) -> None:
        if line := clean("".join(self._line)):
            self.builder.block([line])
        self._line = []


def _headings(node: Any) -> list[Any]:
    """Itself, or those of a page's head, of which the rest leads elsewhere."""
    if node.name in _HEADINGS:
        return [] if _is_dropped(node) else [node]
    return list(node.find_all(list(_HEADINGS))) if node.name == "header" else []


def _is_dropped(node: Any) -> bool:
    return node.name in _DROPPED or node.has_attr("hidden")


def _whole(node: Any) -> list[str]:
    """The lines of a list, a table or a text with breaks of its own; nothing for what has to be walked into: other
    elements, and those that only put a page in order."""
    if node.name == "pre":
        return _text(node, keep_breaks=True).splitlines()
    if node.name in _LISTS:
        return [] if node.find(list(_HEADINGS | {"table"})) else list(_items(node))
    if node.name == "table":
        if node.find(["table", *_HEADINGS, "ul", "ol", "p"]) and not node.find("th"):
            return []
        rows = [[clean(_text(cell, but=_CELLS)) for cell in _cells(row)] for row in node.find_all("tr")]
        caption = node.find("caption")
        lines = table_lines([row for row in rows if any(row)])
        return [clean(_text(caption)), *lines] if caption else lines
    return []


def _cells(row: Any) -> list[Any]:
    """Where cells and rows are not closed, which HTML allows, each holds those that follow."""
    return [cell for cell in row.find_all(["th", "td"]) if cell.find_parent("tr") is row]


def _items(node: Any) -> Iterator[str]:
    """Items of a list with those of the lists in it, each a line: a text up to the next item."""
    line: list[str] = []
    for one in node.descendants:
        if one.name == "li":
            yield clean("".join(line))
            line = []
        elif one.name in _BLOCKS or one.name == "br":
            line.append(" ")
        elif type(one).__name__ == "NavigableString" and not _in_dropped(one, node):
            line.append(str(one))
    yield clean("".join(line))


def _in_dropped(text: Any, root: Any, but: frozenset[str] = frozenset()) -> bool:
    for parent in text.parents:
        if parent is root:
            return False
        if parent.name in but or _is_dropped(parent):
            return True
    return False


def _text(node: Any, *, keep_breaks: bool = False, but: frozenset[str] = frozenset()) -> str:
    """All text in it, apart from what is dropped everywhere and what is in an element of ``but``."""
    parts = []
    for one in node.descendants:
        if one.name in _BLOCKS or one.name == "br":
            parts.append("\n" if keep_breaks else " ")
        elif type(one).__name__ == "NavigableString" and not _in_dropped(one, node, but):
            parts.append(str(one))
    return "".join(parts)

"""Word documents (.docx): headings by their styles, lists and tables whole.

The tree is walked here: the library's own paragraphs leave out what stands in content controls and tracked insertions.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from knowledge.conversion.shapes import ConversionLimits, Converted, from_sections
from knowledge.sections import SectionBuilder, UnreadableDocument, clean, table_lines

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_WRAPPERS = frozenset({f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}smartTag", f"{_W}customXml"})
_OLE = b"\xd0\xcf\x11\xe0"


def read_word(data: bytes, *, title: str, limits: ConversionLimits) -> Converted:
    """Raises:
    UnreadableDocument: protected, damaged, too large when unpacked, or without text.
    """
    if data.startswith(_OLE):  # a password turns the archive into a container of the old kind
        raise UnreadableDocument("It is protected with a password, or an old .doc. Save a plain .docx of it.")
    _check_size(data, limits)
    from docx import Document

    try:
        document = Document(io.BytesIO(data))
        body = document.element.body
        styles = {style.style_id: str(style.name or "") for style in document.styles}
        named = clean(str(document.core_properties.title or ""))[:200]
    except MemoryError:
        raise
    except Exception:
        raise UnreadableDocument("This is no Word document, or it is damaged.") from None
    reader = _Reader(SectionBuilder(named or title), styles)
    for section in reader.read(body):
        reader.sections.append(section)
    notes = []
    if any("footnotes" in str(part.partname) for part in document.part.package.iter_parts()) and _has_notes(body):
        notes.append("Its footnotes were not read.")
    return from_sections(reader.sections, notes=notes)


def _check_size(data: bytes, limits: ConversionLimits) -> None:
    """What the directory says: the unpacker stops at these sizes, so they cannot lie downwards."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise UnreadableDocument("This is no Word document, or it is damaged.") from None
    if len(members) > 10_000 or sum(member.file_size for member in members) > limits.expanded_bytes:
        raise UnreadableDocument(
            f"It unpacks to more than {limits.expanded_bytes // 1_000_000} MB. Leave out its pictures, or split it."
        )


class _Reader:
    def __init__(self, builder: SectionBuilder, styles: dict[str, str]) -> None:
        self.builder = builder
        self.styles = styles
        self.sections: list[Any] = []
        self._items: list[str] = []

    def read(self, body: Any) -> Iterator[Any]:
        for node in _blocks(body):
            if node.tag == f"{_W}tbl":
                self._end_list()
                self.builder.block(table_lines(_rows(node)))
                continue
            text = clean(_text(node))
            if not text:
                continue
            level = self._level(node)
            if level is not None:
                self._end_list()
                yield from self.builder.heading(level, text)
            elif self._is_item(node):
                self._items.append(text)
            else:
                self._end_list()
                self.builder.block([text])
        self._end_list()
        yield from self.builder.end()

    def _end_list(self) -> None:
        if self._items:
            self.builder.block(self._items)
            self._items = []

    def _style(self, paragraph: Any) -> str:
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        return self.styles.get(style.get(f"{_W}val"), "").lower() if style is not None else ""

    def _level(self, paragraph: Any) -> int | None:
        """The title is above the first heading. Names of built-in styles are English in every edition."""
        name = self._style(paragraph)
        if name == "title":
            return 0
        outline = paragraph.find(f"{_W}pPr/{_W}outlineLvl")
        if name.startswith("heading ") and name[8:].isdecimal():
            return int(name[8:])
        if outline is not None and str(outline.get(f"{_W}val")).isdecimal() and int(outline.get(f"{_W}val")) < 9:
            return int(outline.get(f"{_W}val")) + 1
        return None

    def _is_item(self, paragraph: Any) -> bool:
        return paragraph.find(f"{_W}pPr/{_W}numPr") is not None or self._style(paragraph).startswith("list ")


def _blocks(body: Any) -> Iterator[Any]:
    """Paragraphs and tables in order, those in content controls too. With a stack: nesting may be hostile."""
    stack = [iter(body)]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
        elif node.tag in (f"{_W}p", f"{_W}tbl"):
            yield node
        elif node.tag in _WRAPPERS:
            stack.append(iter(node))


def _text(node: Any) -> str:
    """All text of a paragraph or cell. What was deleted with changes tracked has a tag of its own and stays out."""
    parts: list[str] = []
    skipped: Any = None
    for one in node.iter():
        if skipped is not None:
            if skipped in one.iterancestors():
                continue
            skipped = None
        if one.tag == _FALLBACK:
            skipped = one
        elif one.tag == f"{_W}t":
            parts.append(one.text or "")
        elif one.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}p"):
            parts.append(" ")
        elif one.tag == f"{_W}noBreakHyphen":
            parts.append("-")
    return "".join(parts)


def _rows(table: Any) -> list[list[str]]:
    """A cell that goes over several columns is followed by empty ones, so that the rest stay under their names."""
    rows = []
    for row in table.iterchildren(f"{_W}tr"):
        cells: list[str] = []
        for cell in row.iter(f"{_W}tc"):
            if next(cell.iterancestors(f"{_W}tr"), None) is not row:
                continue  # of a table in a cell: read with that cell
            span = cell.find(f"{_W}tcPr/{_W}gridSpan")
            cells.append(clean(_text(cell)))
            width = str(span.get(f"{_W}val")) if span is not None else "1"
            cells += [""] * (min(int(width), 60) - 1 if width.isdecimal() else 0)
        if any(cells):
            rows.append(cells)
    return rows


def _has_notes(body: Any) -> bool:
    return next(body.iter(f"{_W}footnoteReference"), None) is not None

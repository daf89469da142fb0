"""PDF: a page is places and sizes of letters; lines, paragraphs and headings are guessed from them (`pdf_layout`)."""

from __future__ import annotations

import io
from typing import Any

from knowledge.conversion.pdf_layout import Line, sections_of
from knowledge.conversion.shapes import ConversionLimits, Converted, from_sections
from knowledge.sections import UnreadableDocument, clean

_MAX_CHARS = 20_000_000
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
"""Letters that typesetters join and that nobody types: a search for "tariff" would not find them."""
_DAMAGED = "This is no PDF, or it is damaged."


def read_pdf(data: bytes, *, title: str, limits: ConversionLimits) -> Converted:
    """Raises:
    UnreadableDocument: protected, damaged, too many pages, or pictures of text only.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocument("It is protected with a password. Save a copy without one.")
        count = len(reader.pages)
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, RecursionError) as error:
        if isinstance(error, UnreadableDocument):
            raise
        raise UnreadableDocument(_DAMAGED) from None
    if count > limits.pages:
        raise UnreadableDocument(f"It has {count:,} pages; at most {limits.pages:,} are taken. Split it.")
    pages: list[list[Line]] = []
    failed: list[int] = []
    chars = 0
    for number in range(count):
        try:
            lines = _lines(reader.pages[number])
        except MemoryError:
            raise
        except Exception:  # the library raises whatever a damaged page makes it trip over
            lines = []
            failed.append(number + 1)
        chars += sum(len(line.text) for line in lines)
        if chars > _MAX_CHARS:
            raise UnreadableDocument(f"It holds more than {_MAX_CHARS:,} characters. Split it.")
        pages.append(lines)
    silent = [number for number, lines in enumerate(pages, start=1) if not lines and number not in failed]
    if count and len(silent) + len(failed) == count:
        raise UnreadableDocument(
            _DAMAGED
            if failed
            else "Its pages are pictures without text, as scanners make them. Run text recognition (OCR) over it first."
        )
    notes = []
    if failed:
        notes.append(f"{_pages(failed, count)} could not be read.")
    if silent:
        have = "has" if len(silent) == 1 else "have"
        notes.append(f"{_pages(silent, count)} {have} no text: empty, or a picture of text.")
    return from_sections(sections_of(pages, title=_named(reader) or title), pages=count, notes=notes)


def _pages(numbers: list[int], count: int) -> str:
    """``Page 3``, ``Pages 3, 4 and 9 more`` of so many."""
    listed = ", ".join(map(str, numbers[:8]))
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"{'Page' if len(numbers) == 1 else 'Pages'} {listed}{more} of {count}"


def _named(reader: Any) -> str:
    """The title that the author gave; many programs write the name of a file there."""
    try:
        named = clean(str((reader.metadata or {}).get("/Title") or ""))
    except Exception:
        return ""
    looks_like_a_file = "." in named[-6:] or named.lower().startswith(("microsoft ", "untitled", "about:"))
    return "" if looks_like_a_file or not 3 <= len(named) <= 200 else named


def _lines(page: Any) -> list[Line]:
    """Lines in the order in which they are written, which is nearly always that of reading."""
    lines: list[Line] = []
    parts: list[tuple[str, float, bool, float]] = []

    def end() -> None:
        text = clean("".join(part[0] for part in parts).translate(_LIGATURES))
        if text:
            _, size, bold, y = max(parts, key=lambda part: len(part[0].strip()))
            lines.append(Line(text, size, bold, y))
        parts.clear()

    def visit(text: str, cm: Any, tm: Any, font: Any, size: Any) -> None:
        scale = abs(float(tm[3]) or float(tm[1]) or 1.0) * abs(float(cm[3]) or float(cm[1]) or 1.0)
        bold = "bold" in str((font or {}).get("/BaseFont", "")).lower()
        y = float(tm[5]) * float(cm[3] or 1) + float(cm[5])
        for i, piece in enumerate(text.split("\n")):
            if i:
                end()
            if piece:
                parts.append((piece, round(float(size or 0) * scale, 1), bold, y))

    page.extract_text(visitor_text=visit)
    end()
    return lines

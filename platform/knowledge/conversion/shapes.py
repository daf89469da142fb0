"""What goes into a conversion and what comes out, and both as JSON between the two processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from knowledge.sections import MAX_HEADING, Section, UnreadableDocument


@dataclass(frozen=True)
class ConversionLimits:
    """``seconds`` and ``memory_bytes`` hold for one file; ``expanded_bytes`` for what an archive (a DOCX is one)
    unpacks to, ``file_bytes`` for each file in it."""

    pages: int = 2_000
    files: int = 1_000
    file_bytes: int = 25_000_000
    expanded_bytes: int = 250_000_000
    seconds: int = 120
    memory_bytes: int = 1024 * 1024 * 1024


@dataclass(frozen=True)
class Converted:
    """``text``: what is kept of the file. ``notes``: sentences about what could not be read of it."""

    text: str
    sections: list[Section]
    pages: int | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Converted:
        """Raises ValueError for anything but what `to_json` writes: whoever wrote it had read a hostile file."""
        found = json.loads(data)
        try:
            sections = [_section(one) for one in found["sections"]]
            notes = [str(note)[:500] for note in found["notes"][:20]]
            pages = None if found["pages"] is None else int(found["pages"])
            return cls(str(found["text"]), sections, pages, notes)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError("not a converted document") from error


@dataclass(frozen=True)
class Member:
    """One file of an archive. ``problem``: why it was not read; then there is no data."""

    name: str
    size: int
    data: bytes = b""
    problem: str = ""


def _section(one: dict[str, Any]) -> Section:
    headings = [str(heading)[:MAX_HEADING] for heading in one["headings"]]
    if not headings:
        raise ValueError("a section without a title")
    return Section(headings, [[str(line) for line in block] for block in one["blocks"] if block])


def from_sections(sections: Sequence[Section], *, pages: int | None = None, notes: Sequence[str] = ()) -> Converted:
    """With a text that reads like Markdown, for formats whose files are not text.

    Raises:
        UnreadableDocument: there is no text in it.
    """
    filled = [section for section in sections if section.blocks]
    if not filled:
        raise UnreadableDocument("There is no text in this file.")
    return Converted(render(filled), filled, pages, list(notes))


def render(sections: Sequence[Section]) -> str:
    """Headings marked by ``#``, once each where they begin; blocks as they are."""
    parts: list[str] = []
    shown: list[str] = []
    for section in sections:
        for level, heading in enumerate(section.headings):
            if shown[: level + 1] != section.headings[: level + 1]:
                parts.append(f"{'#' * min(level + 1, 6)} {heading}")
                shown = section.headings[: level + 1]
        shown = list(section.headings)
        parts += ["\n".join(block) for block in section.blocks]
    return "\n\n".join(parts)

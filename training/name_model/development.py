"""The hand-written development sets, and the held-out generated texts, in one form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "development"
_MARKED = re.compile(r"\[\[([PLA]):(.*?)\]\]", re.DOTALL)
_TYPES = {"P": "PERSON", "L": "LOCATION", "A": "ADDRESS"}


@dataclass(frozen=True)
class Labelled:
    """A text and its [start, end, type] stretches; type IGNORE: neither right nor wrong."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


def chats() -> list[Labelled]:
    """The chats of `development/chats.txt`."""
    content = (FOLDER / "chats.txt").read_text(encoding="utf-8")
    return [_unmarked(part.strip("\n")) for part in content.split("\n---\n")]


def technical() -> list[Labelled]:
    """The paragraphs of `development/technical.txt`, which hold no name."""
    content = (FOLDER / "technical.txt").read_text(encoding="utf-8")
    return [Labelled(part, ()) for part in content.strip().split("\n\n")]


def held_out(path: Path) -> list[Labelled]:
    """Generated texts from templates and names that training did not see."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Labelled(row["text"], tuple((s, e, kind) for s, e, kind in row["spans"])) for row in rows]


def _unmarked(marked: str) -> Labelled:
    parts: list[str] = []
    spans = []
    length = position = 0
    for match in _MARKED.finditer(marked):
        before = marked[position : match.start()]
        parts += [before, match.group(2)]
        start = length + len(before)
        length = start + len(match.group(2))
        spans.append((start, length, _TYPES[match.group(1)]))
        position = match.end()
    parts.append(marked[position:])
    return Labelled("".join(parts), tuple(spans))

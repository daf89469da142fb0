"""What a file would become, for somebody who decides whether it is taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from knowledge.loading import Prepared
from knowledge.models import Document
from knowledge.storing import key_of, known_vectors

MAX_CHUNKS_SHOWN = 300
"""Chunks that a preview keeps; of the rest only the number is told."""


@dataclass(frozen=True)
class Preview:
    """``kept``: chunks that are in the version before, too; ``gone``: of that version, chunks that are not in this one.
    ``chunks``: the first of them, ``{headings, text, tokens, new}``."""

    title: str
    media_type: str
    version: int
    total: int
    kept: int
    gone: int
    to_embed: int
    pages: int | None
    notes: list[str]
    masked: dict[str, int]
    chunks: list[dict[str, Any]]

    @property
    def sentence(self) -> str:
        chunks = f"{self.total} chunk{'' if self.total == 1 else 's'}"
        if self.version == 1:
            return f"New: “{self.title}”, {chunks}."
        new = self.total - self.kept
        return f"Version {self.version}: “{self.title}”, {chunks}: {new} new, {self.kept} stay, {self.gone} go."

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def preview_of(prepared: Prepared, document: Document | None) -> Preview:
    """``document``: what is stored of the same file."""
    there: set[Any] = set()
    if document is not None:
        rows = document.chunks.values_list("headings", "text")
        there = {(tuple(headings), text) for headings, text in rows}
    keys = [key_of(chunk) for chunk in prepared.chunks]
    known = known_vectors(prepared)
    version = 1 if document is None or not document.digest else document.version + 1
    return Preview(
        title=prepared.scrubbed.title,
        media_type=prepared.source.media_type,
        version=version,
        total=len(keys),
        kept=sum(key in there for key in keys),
        gone=len(there - set(keys)),
        to_embed=len(set(keys) - set(known)),
        pages=prepared.pages,
        notes=prepared.notes,
        masked=prepared.scrubbed.masked,
        chunks=[
            {"headings": list(c.headings), "text": c.text, "tokens": c.tokens, "new": key_of(c) not in there}
            for c in prepared.chunks[:MAX_CHUNKS_SHOWN]
        ],
    )


def sentence_of_document(document: Document) -> str:
    """What became of a file that was loaded."""
    made = document.versions.filter(number=document.version).first()
    chunks = document.chunks.count()
    parts = [f"{chunks} chunk{'' if chunks == 1 else 's'}"]
    if document.version > 1 and made is not None and made.chunks_kept:
        parts.append(f"{made.chunks_kept} of them as before")
    if document.superseded:
        parts.append("another document counts now, it says")
    version = f"Version {document.version}" if document.version > 1 else "New"
    masked = f" Masked: {document.masked_words}." if document.masked else ""
    notes = f" {document.notes}" if document.notes else ""
    return f"{version}: “{document.title}”, {'; '.join(parts)}.{masked}{notes}".replace("\n", " ")

"""Natural text for training: the PostgreSQL and Python manuals, cut into titled sections of whole sentences.

Source: the Debian packages `postgresql-doc-15` and `python3.11-doc`, unpacked with `dpkg -x`. Both manuals carry
permissive licences (PostgreSQL Licence, PSF Licence). Release notes, change logs and indexes are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from generation.prompts import split_sentences

HELD_OUT_SHARE = 0.03
"""Share of the manual pages (by hash of the page name) that training never sees."""
_SKIPPED_PAGE = re.compile(r"genindex|changelog|release|whatsnew|/_|search\.html|bookindex|acknowledg|license|biblio")
_SKIPPED_TAGS = frozenset({"script", "style", "pre", "table", "nav", "sup"})
_BLOCK_TAGS = frozenset({"p", "dd", "li"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4"})
_SECTION_NUMBER = re.compile(r"^(?:Chapter |Appendix )?[\dA-Z]{1,3}(?:\.\d+)*\.\s+")


@dataclass(frozen=True)
class Section:
    """Neighbouring sentences under one heading of one page."""

    page: str
    title: str
    sentences: tuple[str, ...]


class _Page(HTMLParser):
    """Collects (heading, paragraph) pairs; code, tables and navigation are skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []
        self._heading = ""
        self._words: list[str] | None = None
        self._in_heading = False
        self._skip = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SKIPPED_TAGS:
            self._skip += 1
        if tag in _BLOCK_TAGS or tag in _HEADINGS:
            self._flush()
            self._words = []
            self._in_heading = tag in _HEADINGS

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED_TAGS:
            self._skip = max(0, self._skip - 1)
        if tag in _BLOCK_TAGS or tag in _HEADINGS:
            self._flush()

    def handle_data(self, data: str) -> None:
        if self._words is not None and not self._skip:
            self._words.append(data)

    def _flush(self) -> None:
        text = " ".join("".join(self._words or ()).split()).replace("¶", "")
        text = text.translate({0x201C: '"', 0x201D: '"', 0x2018: "'", 0x2019: "'"})
        if self._in_heading and text:
            self._heading = _SECTION_NUMBER.sub("", text)[:80]
        elif len(text) > 40:
            self.pairs.append((self._heading, text))
        self._words = None
        self._in_heading = False


def is_held_out(page: str) -> bool:
    """True for the manual pages that are kept for evaluation."""
    return int(hashlib.sha256(page.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF < HELD_OUT_SHARE


def read_sections(folder: Path, *, most_sentences: int = 8) -> Iterator[Section]:
    """Sections of all manual pages below ``folder``, in a fixed order; every sentence appears once in the corpus.

    Raises:
        FileNotFoundError: ``folder`` holds no HTML page.
    """
    pages = [p for p in sorted(folder.rglob("*.html")) if not _SKIPPED_PAGE.search(p.as_posix())]
    if not pages:
        raise FileNotFoundError(f"no manual pages below {folder}; unpack the two documentation packages there")
    seen: set[str] = set()
    for path in pages:
        parser = _Page()
        parser.feed(path.read_text(encoding="utf-8", errors="replace"))
        name = path.relative_to(folder).as_posix()
        heading, kept = "", list[str]()
        for title, text in parser.pairs:
            fresh = [s for s in split_sentences(text) if _usable(s) and s not in seen]
            seen.update(fresh)
            if kept and (title != heading or len(kept) + len(fresh) > most_sentences):
                yield Section(name, heading, tuple(kept))
                kept = []
            heading = title
            kept += fresh[:most_sentences]
        if kept:
            yield Section(name, heading, tuple(kept))


def _usable(sentence: str) -> bool:
    """A whole sentence of prose that the prompt code would not cut again."""
    words = sentence.split()
    if not 5 <= len(words) <= 36 or sentence[-1] not in ".!?" or not sentence[0].isupper():
        return False
    if sum(c.isalpha() or c == " " for c in sentence) < 0.86 * len(sentence) or ">>>" in sentence:
        return False
    return split_sentences(sentence) == [sentence]

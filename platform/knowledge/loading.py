"""One file becomes one document: read, masked, cut; then stored (`knowledge.storing`) or only looked at.

Nothing of the text is stored before it was masked, and nothing at all of a file that could not be read or masked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from django.contrib.auth.models import User

from assistants.models import Assistant
from assistants.policies import Rules, rules_of
from knowledge.chunking import CHUNKER, ChunkText, chunk_sections
from knowledge.conversion import formats
from knowledge.conversion.process import READER
from knowledge.conversion.shapes import Converted
from knowledge.embedding import count_tokens, embedder_digest, window
from knowledge.evidence import SENTENCES
from knowledge.limits import MAX_CHUNKS, MAX_PATH, conversion_limits, megabytes
from knowledge.models import Document, DocumentQuerySet, UploadedFile
from knowledge.scrubbing import ScrubbedDocument, scrub_document, scrub_path, source_key, table_of
from knowledge.sections import MAX_HEADING, Section, UnreadableDocument, decode, read_sections
from privacy.findings import PLACEHOLDER

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
Tick = Callable[[], None]
"""Called every second or so while a file is taken in; what it raises ends that."""


@dataclass(frozen=True)
class Brought:
    """Who brought a document, and how: stands on its version. ``file``: of the upload that it came in, if any."""

    by: User | None = None
    via: str = ""
    file: UploadedFile | None = None


@dataclass(frozen=True)
class Source:
    """Where a document comes from; ``path`` as it may be shown."""

    assistant: Assistant
    key: str
    media_type: str
    size: int
    path: str = ""

    def stored(self) -> DocumentQuerySet:
        return Document.objects.filter(assistant=self.assistant, source_key=self.key)


@dataclass(frozen=True)
class Prepared:
    """A document as it would be stored. ``index``: names what cut it and what embeds it."""

    source: Source
    rules: Rules
    scrubbed: ScrubbedDocument
    digest: str
    index: str
    chunks: list[ChunkText]
    pages: int | None = None
    notes: list[str] = field(default_factory=list)

    def current(self) -> Document | None:
        """The document that is there already with the same text, cut and embedded in the same way."""
        same = {"digest": self.digest, "title": self.scrubbed.title, "index_digest": self.index}
        return self.source.stored().ready().filter(**same).first()

    def current_locked(self) -> Document | None:
        """As `current`, and nobody else stores a version until the transaction ends."""
        found = self.current()
        if found is None:
            return None
        # Whoever had the row may have stored another text meanwhile: so it is asked again of what the lock shows.
        Document.objects.select_for_update().filter(pk=found.pk).first()
        return self.current()


class NotPrepared(Exception):
    """A file that cannot be taken. ``source``: as far as it is known; the message is a sentence for a person."""

    def __init__(self, source: Source, sentence: str) -> None:
        super().__init__(sentence)
        self.source = source


def prepare(
    *,
    assistant: Assistant,
    path: str,
    data: bytes,
    media_type: str | None = None,
    size: int | None = None,
    tick: Tick | None = None,
) -> Prepared:
    """Reads, masks and cuts a file; embeds and stores nothing.

    Args:
        path: as it was given; its ending says what kind of file it is, unless ``media_type`` does.
        size: of the file, where ``data`` was left out because of it.

    Raises:
        NotPrepared: see the message.
    """
    table = table_of(path)
    kind = media_type or formats.media_type_of(path)
    source = Source(assistant, source_key(assistant.pk, path), kind, size or len(data))
    try:
        rules = _rules_of(assistant)
        source = replace(source, path=scrub_path(rules=rules, path=path, table=table)[:MAX_PATH])
        _check(path, source)
        found = _convert(data, source, tick)
        scrubbed = scrub_document(rules=rules, table=table, text=found.text, sections=found.sections)
        chunks = chunk_sections(scrubbed.sections, count_tokens, window=window(), most=MAX_CHUNKS + 1)
        if len(chunks) > MAX_CHUNKS:
            raise UnreadableDocument(f"The file makes more than {MAX_CHUNKS:,} chunks. Split it.")
    except UnreadableDocument as error:
        if not source.path:
            source = replace(source, path=scrub_path(rules=None, path=path, table=table))
        raise NotPrepared(source, str(error)) from None
    # Of the masked text: a hash of what was masked could be guessed at, and another policy makes another version.
    digest = hashlib.sha256(scrubbed.text.encode()).hexdigest()
    return Prepared(source, rules, scrubbed, digest, index_digest(), chunks, found.pages, found.notes)


def index_digest() -> str:
    """Names what a document's vectors are made by. Documents of another index are cut and embedded anew when they are
    loaded, whether or not their text has changed."""
    parts = "\x1f".join((embedder_digest(), CHUNKER, SENTENCES, str(window())))
    return hashlib.sha256(parts.encode()).hexdigest()


def _check(path: str, source: Source) -> None:
    limits = conversion_limits()
    if len(path) > MAX_PATH:
        raise UnreadableDocument(f"Its path is longer than {MAX_PATH} characters.")
    if source.size > limits.file_bytes:
        raise UnreadableDocument(f"The file is larger than {megabytes(limits.file_bytes)}.")
    if source.media_type == formats.UNKNOWN:
        raise UnreadableDocument(formats.why_not_read(path))


def _convert(data: bytes, source: Source, tick: Tick | None) -> Converted:
    title = title_of(source.path)
    if source.media_type in formats.APART:
        limits = conversion_limits()
        found = READER.convert(data, media_type=source.media_type, title=title, limits=limits, tick=tick)
    else:
        text = decode(data)
        found = Converted(text, read_sections(text, source.media_type, fallback_title=title))
    return _storable(found)


def _storable(found: Converted) -> Converted:
    """PostgreSQL keeps no NUL, and half a surrogate pair cannot be encoded: some PDFs hold both."""
    lines = (line for section in found.sections for block in section.blocks for line in block)
    headings = (heading for section in found.sections for heading in section.headings)
    if not any(_UNSTORABLE.search(text) for text in (found.text, *headings, *lines)):
        return found

    def plain(text: str) -> str:
        return _UNSTORABLE.sub(" ", text)

    sections = [
        Section([plain(heading) for heading in one.headings], [[plain(line) for line in block] for block in one.blocks])
        for one in found.sections
    ]
    return replace(found, text=plain(found.text), sections=sections)


def _rules_of(assistant: Assistant) -> Rules:
    try:
        return rules_of(assistant)
    except ValueError:
        raise UnreadableDocument("The privacy policy cannot be read. Save it anew, then load this again.") from None


def title_of(path: str) -> str:
    """Of a file without a heading. A placeholder in the name stays one."""
    title = PurePosixPath(path).stem.replace("-", " ")
    return (title if PLACEHOLDER.search(title) else title.capitalize())[:MAX_HEADING]

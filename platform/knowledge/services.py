"""Writes of the knowledge room: documents in, chunks with vectors stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from django.contrib.auth.models import User
from django.db import connection, transaction

from assistants.models import Assistant
from assistants.policies import Rules, rules_of
from assistants.services import audit
from knowledge.chunking import ChunkText, chunk_sections, embedded_text
from knowledge.embedding import count_tokens, embed
from knowledge.evidence import sentence_matrices
from knowledge.models import Chunk, Document, DocumentQuerySet
from knowledge.scrubbing import ScrubbedDocument, masking_digest, scrub_document, scrub_path, source_key, table_of
from knowledge.sections import MAX_HEADING, UnreadableDocument, decode, read_sections
from privacy.findings import PLACEHOLDER

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
}
_UNKNOWN = "application/octet-stream"
MAX_BYTES = 5_000_000
MAX_PATH = 500
MAX_CHUNKS = 5_000
"""Of one document: more is a dump, not a document."""
_SUPERSEDED = re.compile(r"(?:^|[.*_]\s*)superseded by\b", re.IGNORECASE | re.MULTILINE)
"""A sentence near the top that begins so says that another document counts."""


@dataclass
class LoadReport:
    loaded: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    masked: dict[str, str] = field(default_factory=dict)
    """path → what was masked in what was loaded, in words"""

    @property
    def sentence(self) -> str:
        masked = f", something masked in {len(self.masked)}" if self.masked else ""
        return f"{len(self.loaded)} loaded, {len(self.unchanged)} unchanged, {len(self.failed)} failed{masked}"


Progress = Callable[[int, int, str], None]
"""(done, total, path)"""


def load_folder(*, assistant: Assistant, folder: Path, progress: Progress | None = None) -> LoadReport:
    """Loads every Markdown, text and HTML file below ``folder``; one that fails is reported and the rest load.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in MEDIA_TYPES)
    report = LoadReport()
    for done, file in enumerate(files, start=1):
        path = file.relative_to(folder).as_posix()
        try:
            size = file.stat().st_size
            data = file.read_bytes() if size <= MAX_BYTES else b""
        except OSError as error:
            report.failed.append((path, f"It cannot be read: {error.strerror}."))
            continue
        load_one(assistant=assistant, path=path, data=data, report=report, size=size)
        if progress:
            progress(done, len(files), path)
    return report


def load_one(*, assistant: Assistant, path: str, data: bytes, report: LoadReport, size: int | None = None) -> Document:
    """`load_document` with its outcome noted in ``report``."""
    key = source_key(assistant.pk, path)
    before = Document.objects.filter(assistant=assistant, source_key=key).values_list("digest", "state").first()
    document = load_document(assistant=assistant, path=path, data=data, size=size)
    if document.state == Document.State.FAILED:
        report.failed.append((path, document.error))
    elif before == (document.digest, Document.State.READY):
        report.unchanged.append(path)
    else:
        report.loaded.append(path)
        if document.masked:
            report.masked[path] = document.masked_words
    return document


def load_document(
    *, assistant: Assistant, path: str, data: bytes, media_type: str | None = None, size: int | None = None
) -> Document:
    """Stores a document and its chunks; the same content again changes nothing, other content is its next version.

    It is masked first, as the assistant's privacy policy says of documents. One that cannot be read or scrubbed is
    stored as failed with a sentence and nothing of its text; its former chunks stay searchable.
    """
    suffix = Path(path).suffix.lower()
    table = table_of(path)
    source = _Source(assistant, source_key(assistant.pk, path), media_type or MEDIA_TYPES.get(suffix, _UNKNOWN))
    try:
        rules = _rules_of(assistant)
        source = replace(source, path=scrub_path(rules=rules, path=path, table=table)[:MAX_PATH])
        if len(path) > MAX_PATH:
            raise UnreadableDocument(f"Its path is longer than {MAX_PATH} characters.")
        if (size or len(data)) > MAX_BYTES:
            raise UnreadableDocument(f"The file is larger than {MAX_BYTES // 1_000_000} MB.")
        text = decode(data)
        sections = read_sections(text, source.media_type, fallback_title=_title_of(source.path))
        scrubbed = scrub_document(rules=rules, table=table, text=text, sections=sections)
        # Of the masked text: a hash of what was masked could be guessed at, and another policy makes another version.
        digest = hashlib.sha256(scrubbed.text.encode()).hexdigest()
        if document := source.stored().ready().filter(digest=digest, title=scrubbed.title).first():
            return _still_current(document, source, rules)
        chunks = chunk_sections(scrubbed.sections, count_tokens)
        if len(chunks) > MAX_CHUNKS:
            raise UnreadableDocument(f"The file makes {len(chunks)} chunks; at most {MAX_CHUNKS} are taken.")
    except UnreadableDocument as error:
        if not source.path:
            source = replace(source, path=scrub_path(rules=None, path=path, table=table))
        return _store_failure(source, str(error))
    return _store(source, scrubbed=scrubbed, digest=digest, rules=rules, chunks=chunks)


@dataclass(frozen=True)
class _Source:
    """Where a document comes from; ``path`` as it may be shown."""

    assistant: Assistant
    key: str
    media_type: str
    path: str = ""

    def stored(self) -> DocumentQuerySet:
        return Document.objects.filter(assistant=self.assistant, source_key=self.key)


def _rules_of(assistant: Assistant) -> Rules:
    try:
        return rules_of(assistant)
    except ValueError:
        raise UnreadableDocument("The privacy policy cannot be read. Save it anew, then load this again.") from None


def _still_current(document: Document, source: _Source, rules: Rules) -> Document:
    """The same text, although perhaps a newer policy has read it."""
    read = {"masking": rules.documents, "masking_digest": masking_digest(rules), "path": source.path}
    Document.objects.filter(pk=document.pk).exclude(**read).update(**read)
    document.refresh_from_db(fields=list(read))
    return document


def _title_of(path: str) -> str:
    """Of a file without a heading. A placeholder in the name stays one."""
    title = Path(path).stem.replace("-", " ")
    return (title if PLACEHOLDER.search(title) else title.capitalize())[:MAX_HEADING]


@transaction.atomic
def delete_document(*, document: Document, actor: User | None = None) -> None:
    """Removes a document with its chunks; passages of logged turns keep their own copy of the text."""
    audit(assistant=document.assistant, actor=actor, action="document.deleted", target=document.path[:200])
    document.delete()


@transaction.atomic
def mark_superseded(*, documents: Sequence[Document], superseded: bool, actor: User | None = None) -> int:
    """Says whether another document counts instead: a superseded one is still retrieved, but no questions are written
    from it. The next version of the file decides anew. Returns how many changed."""
    changed = [document for document in documents if document.superseded != superseded]
    for document in changed:
        document.superseded = superseded
        document.save(update_fields=["superseded", "updated_at"])
        action = "document.superseded" if superseded else "document.in_force"
        audit(assistant=document.assistant, actor=actor, action=action, target=document.path[:200])
    return len(changed)


def _store_failure(source: _Source, reason: str) -> Document:
    failed = {"path": source.path, "state": Document.State.FAILED, "error": reason}
    title = PurePosixPath(source.path).name[:300]
    document, _ = Document.objects.update_or_create(
        assistant=source.assistant,
        source_key=source.key,
        defaults=failed,
        create_defaults={**failed, "title": title, "media_type": source.media_type, "text": "", "digest": ""},
    )
    return document


def _store(
    source: _Source, *, scrubbed: ScrubbedDocument, digest: str, rules: Rules, chunks: list[ChunkText]
) -> Document:
    title, text = scrubbed.title, scrubbed.text
    # Vectors are made before the transaction: a long embedding must not hold a row lock.
    vectors = embed([embedded_text(c.headings, c.text) for c in chunks])
    matrices = sentence_matrices([(c.headings[-1], c.text) for c in chunks])
    with transaction.atomic():
        document, created = Document.objects.select_for_update().get_or_create(
            assistant=source.assistant,
            source_key=source.key,
            defaults={"title": title, "media_type": source.media_type, "text": text, "digest": digest},
        )
        if not created:
            document.chunks.all().delete()
            document.version += 1
        document.title, document.text, document.digest = title, text, digest
        document.path, document.media_type = source.path, source.media_type
        document.masking, document.masking_digest = rules.documents, masking_digest(rules)
        document.masked = scrubbed.masked
        document.state, document.error = Document.State.READY, ""
        document.superseded = bool(_SUPERSEDED.search(text[:800]))
        document.save()
        _copy_chunks(document, chunks, vectors, matrices)
    return document


def _copy_chunks(document: Document, chunks: list[ChunkText], vectors: np.ndarray, matrices: Iterable[bytes]) -> None:
    """COPY rather than bulk_create: five times the rows a second."""
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector

    connection.ensure_connection()
    raw = connection.connection
    register_vector(raw)  # before the cursor is made: Django's own cursor has copied its adapters already
    columns = ("assistant_id", "document_id", "position", "headings", "text", "digest", "tokens", "embedding",
               "sentence_embeddings")  # fmt: skip
    with raw.cursor() as cursor, cursor.copy(
        f"COPY {Chunk._meta.db_table} ({', '.join(columns)}) FROM STDIN WITH (FORMAT BINARY)"
    ) as copy:  # fmt: skip
        copy.set_types(["int8", "int8", "int4", "varchar[]", "text", "varchar", "int4", "halfvec", "bytea"])
        for position, (chunk, vector, matrix) in enumerate(zip(chunks, vectors, matrices, strict=True)):
            digest = hashlib.sha256(chunk.text.encode()).hexdigest()
            copy.write_row((
                document.assistant_id, document.pk, position, list(chunk.headings), chunk.text, digest,
                chunk.tokens, HalfVector(vector), matrix,
            ))  # fmt: skip

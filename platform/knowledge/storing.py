"""A prepared document into the tables: chunks that were there keep their rows and vectors, and what the document was
before stays as a version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.utils import timezone

from knowledge.chunking import ChunkText, embedded_text
from knowledge.copying import COLUMNS, stream
from knowledge.embedding import embed
from knowledge.evidence import sentence_matrices
from knowledge.loading import Brought, Prepared, Source, Tick
from knowledge.models import Chunk, Document, DocumentVersion, UploadedFile
from knowledge.scrubbing import masking_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEPT_TEXTS = 20
"""Versions of a document whose text is kept beside the newest."""
_BATCH = 32
"""Chunks that are embedded between two signs of life."""
_SUPERSEDED = re.compile(r"(?:^|[.*_]\s*)superseded by\b\s*:?\s*(?P<by>[^\n]{0,300})", re.IGNORECASE | re.MULTILINE)
"""A sentence near the top that begins so says that another document counts."""

Key = tuple[tuple[str, ...], str]
"""What a vector is made of: headings and text."""


class Overtaken(Exception):
    """A file that was uploaded later is stored under the same path; of this one nothing is. The message says which."""


@dataclass(frozen=True)
class Vectors:
    """``packed``: of the sentences, as `Chunk.sentence_embeddings`."""

    whole: NDArray[np.float32] | Sequence[float]
    packed: bytes


def store(prepared: Prepared, brought: Brought, tick: Tick | None = None) -> Document:
    """The document's first or next version.

    Chunks of which heading path and text are unchanged keep their row, so that what refers to them goes on doing so,
    and their vectors. A file that moved finds the vectors of its former place.

    Raises:
        Overtaken: a newer upload was faster.
    """
    known = known_vectors(prepared)
    # Vectors are made before the transaction: a long embedding must not hold a row lock.
    vectors = known | _embedded([c for c in prepared.chunks if key_of(c) not in known], tick)
    with transaction.atomic():
        document, created = _locked(prepared)
        _take_place(document, brought)
        keeps_index = document.index_digest == prepared.index
        before = (document.digest, document.masking_digest)
        if not created:
            _keep_version(document, masking_digest(prepared.rules))
        _describe(document, prepared, brought, created)
        kept = _replace_chunks(document, prepared.chunks, vectors, keeps_index=keeps_index)
        if created or before != (document.digest, document.masking_digest) or not keeps_index:
            _note_version(document, brought, len(prepared.chunks), kept)
    return document


def _refuse_older(document: Document, brought: Brought) -> None:
    """Each upload is read in a process of its own, so a small file of a later one is ready before a large one of an
    earlier. The caller holds the document's row.

    Raises:
        Overtaken: what is stored came later.
    """
    if brought.file is None:
        return
    there = UploadedFile.objects.filter(document=document, outcome__in=UploadedFile.STORED)
    later = there.filter(upload_id__gt=brought.file.upload_id).order_by("-upload_id").first()
    if later is not None:
        raise Overtaken(
            f"A newer file came meanwhile with upload {later.upload_id}, so nothing of this one was stored. "
            "Upload it again if it is the one that counts."
        )


def _take_place(document: Document, brought: Brought) -> None:
    """As `_refuse_older`; from the end of the transaction on older files are refused. Not left to what becomes of the
    file, which is written in another one: an older file could come in between."""
    _refuse_older(document, brought)
    if brought.file is not None:
        UploadedFile.objects.filter(pk=brought.file.pk).update(document=document)


@transaction.atomic
def store_failure(source: Source, reason: str, brought: Brought) -> Document:
    """What was loaded before of the same file stays searchable.

    Raises:
        Overtaken: a newer upload was faster.
    """
    if (there := source.stored().select_for_update().first()) is not None:
        _refuse_older(there, brought)
    failed = {"path": source.path, "state": Document.State.FAILED, "error": reason}
    title = PurePosixPath(source.path).name[:300]
    document, _ = Document.objects.update_or_create(
        assistant=source.assistant,
        source_key=source.key,
        defaults=failed,
        create_defaults={
            **failed, "title": title, "media_type": source.media_type, "text": "", "digest": "", "size": source.size,
        },
    )  # fmt: skip
    return document


def key_of(chunk: ChunkText) -> Key:
    return chunk.headings, chunk.text


def known_vectors(prepared: Prepared) -> dict[Key, Vectors]:
    """Of the assistant's chunks with the same words under the same headings, made by the same index."""
    digests = list({_digest(chunk.text) for chunk in prepared.chunks})
    rows = Chunk.objects.filter(
        assistant=prepared.source.assistant, digest__in=digests, document__index_digest=prepared.index
    )
    columns = rows.values_list("headings", "text", "embedding", "sentence_embeddings")
    wanted = {key_of(chunk) for chunk in prepared.chunks}
    return {
        key: Vectors(vector, bytes(packed))
        for headings, text, vector, packed in columns.iterator(chunk_size=500)
        if (key := (tuple(headings), text)) in wanted
    }


def _embedded(chunks: Sequence[ChunkText], tick: Tick | None) -> dict[Key, Vectors]:
    distinct = {key_of(chunk): chunk for chunk in chunks}
    found: dict[Key, Vectors] = {}
    rest = list(distinct.values())
    for start in range(0, len(rest), _BATCH):
        part = rest[start : start + _BATCH]
        if tick is not None:
            tick()
        whole = embed([embedded_text(c.headings, c.text) for c in part])
        packed = sentence_matrices([(c.headings[-1], c.text) for c in part])
        found |= {key_of(c): Vectors(v, p) for c, v, p in zip(part, whole, packed, strict=True)}
    return found


def _locked(prepared: Prepared) -> tuple[Document, bool]:
    source, title = prepared.source, prepared.scrubbed.title
    return Document.objects.select_for_update().get_or_create(
        assistant=source.assistant,
        source_key=source.key,
        defaults={
            "title": title, "media_type": source.media_type, "text": prepared.scrubbed.text, "digest": prepared.digest,
            "index_digest": prepared.index,
        },
    )  # fmt: skip


def still_current(prepared: Prepared, brought: Brought) -> Document | None:
    """The document that has the same text already, although perhaps a newer policy has read it now; None: none has.

    Raises:
        Overtaken: a newer upload was faster.
    """
    source, rules = prepared.source, prepared.rules
    read = {"masking": rules.documents, "masking_digest": masking_digest(rules), "path": source.path}
    with transaction.atomic():
        document = prepared.current_locked()
        if document is None:
            return None
        _take_place(document, brought)
        if Document.objects.filter(pk=document.pk).exclude(**read).update(**read):
            document.versions.filter(number=document.version).update(masking_digest=read["masking_digest"])
            _forget_texts(document, read["masking_digest"])
    document.refresh_from_db(fields=list(read))
    return document


def _keep_version(document: Document, masking: str) -> None:
    """Puts the text that is about to be replaced into its version's row."""
    if document.masking_digest == masking:
        document.versions.filter(number=document.version).update(text=document.text, masking_digest=masking)
    _forget_texts(document, masking)


def _forget_texts(document: Document, masking: str) -> None:
    """Texts that were masked by another policy than the one that counts are not kept: a stricter policy would be of no
    use if the old text stayed in the history. Neither are those of very old versions."""
    versions = document.versions.exclude(text="")
    versions.exclude(masking_digest=masking).update(text="")
    old = versions.order_by("-number").values_list("pk", flat=True)[KEPT_TEXTS:]
    DocumentVersion.objects.filter(pk__in=list(old)).update(text="")


def _describe(document: Document, prepared: Prepared, brought: Brought, created: bool) -> None:
    source, scrubbed, rules = prepared.source, prepared.scrubbed, prepared.rules
    # A first attempt that failed was no version; neither is the same text under another index.
    changed = (document.digest, document.title) != (prepared.digest, scrubbed.title)
    if not created and document.digest and changed:
        document.version += 1
    document.title, document.text, document.digest = scrubbed.title, scrubbed.text, prepared.digest
    document.path, document.media_type, document.size = source.path, source.media_type, source.size
    document.pages, document.notes = prepared.pages, "\n".join(prepared.notes)
    document.masking, document.masking_digest = rules.documents, masking_digest(rules)
    document.masked, document.index_digest = scrubbed.masked, prepared.index
    document.state, document.error = Document.State.READY, ""
    document.via, document.loaded_by = brought.via[:160], brought.by
    if created or changed:  # only cut anew: what a person has said of it stays
        said = _SUPERSEDED.search(scrubbed.text[:800])
        document.superseded = said is not None
        document.superseded_at = timezone.now() if said else None
        document.superseded_by = _named_in(said["by"], document) if said else None
    document.save()


def _named_in(words: str, document: Document) -> Document | None:
    """The document of the same assistant that a sentence names by its title, path or file name."""
    words = f" {words.casefold()} "
    others = Document.objects.ready().filter(assistant_id=document.assistant_id).exclude(pk=document.pk)
    best: tuple[int, int] = (0, 0)
    for pk, path, title in others.values_list("pk", "path", "title")[:20_000]:
        titles = (title,) if " " in title else ()  # a single word is said of many things
        for name in (path, PurePosixPath(path).name, PurePosixPath(path).stem, *titles):
            folded = name.casefold()
            if len(folded) <= max(best[0], 3) or folded not in words:
                continue
            if re.search(rf"(?<![\w./-]){re.escape(folded)}(?![\w-]|\.\w)", words):
                best = (len(folded), pk)
    return others.filter(pk=best[1]).first() if best[1] else None


def _note_version(document: Document, brought: Brought, chunks: int, kept: int) -> None:
    DocumentVersion.objects.update_or_create(
        document=document,
        number=document.version,
        defaults={
            "title": document.title, "digest": document.digest, "size": document.size, "pages": document.pages,
            "chunks": chunks, "chunks_kept": kept, "masked": document.masked, "text": "",
            "masking_digest": document.masking_digest, "via": document.via, "created_by": brought.by,
        },
    )  # fmt: skip


def _replace_chunks(
    document: Document, chunks: Sequence[ChunkText], vectors: dict[Key, Vectors], *, keeps_index: bool
) -> int:
    """Writes what is new, moves what stays, deletes what is gone. Returns how many stay."""
    there: dict[Key, list[int]] = {}
    if keeps_index:
        for pk, headings, text in document.chunks.order_by("position").values_list("pk", "headings", "text"):
            there.setdefault((tuple(headings), text), []).append(pk)
    stays: dict[int, int] = {}
    fresh: list[tuple[int, ChunkText]] = []
    for position, chunk in enumerate(chunks):
        rows = there.get(key_of(chunk))
        if rows:
            stays[rows.pop(0)] = position
        else:
            fresh.append((position, chunk))
    document.chunks.exclude(pk__in=list(stays)).delete()
    _move(stays)
    missing = [chunk for _, chunk in fresh if key_of(chunk) not in vectors]
    if missing:  # another load of the same file took rows away after they had been counted on
        vectors = vectors | _embedded(missing, None)
    copy_chunks(document, [(position, chunk, vectors[key_of(chunk)]) for position, chunk in fresh])
    return len(stays)


def _move(places: dict[int, int]) -> None:
    """In two steps, since each place is taken once."""
    if not places:
        return
    table = Chunk._meta.db_table
    with connection.cursor() as cursor:
        given = "(SELECT unnest(%s::bigint[]) AS id, unnest(%s::int[]) AS place) AS given"
        changed = f"{table}.id = given.id AND {table}.position <> given.place"
        aside = 1_000_000_000
        for shift in (aside, 0):
            condition = changed if shift else f"{table}.id = given.id AND {table}.position >= {aside}"
            cursor.execute(
                f"UPDATE {table} SET position = given.place + {shift} FROM {given} WHERE {condition}",  # noqa: S608
                [list(places), list(places.values())],
            )


def copy_chunks(document: Document, chunks: Sequence[tuple[int, ChunkText, Vectors]]) -> None:
    """Rows of (position, chunk, vectors) by COPY rather than bulk_create: five times the rows a second.

    The document needs no more than its two keys.
    """
    if not chunks:
        return
    connection.ensure_connection()
    with connection.connection.cursor() as cursor, cursor.copy(
        f"COPY {Chunk._meta.db_table} ({', '.join(COLUMNS)}) FROM STDIN WITH (FORMAT BINARY)"
    ) as copy:  # fmt: skip
        for block in stream(document, chunks):
            copy.write(block)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

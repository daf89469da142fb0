"""Writes of the knowledge room: documents in, out, and which of them count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from assistants.models import Assistant
from assistants.services import audit
from knowledge.conversion.formats import MEDIA_TYPES
from knowledge.limits import MAX_CHUNKS, MAX_PATH, conversion_limits
from knowledge.loading import Brought, NotPrepared, Tick, prepare
from knowledge.models import Document
from knowledge.scrubbing import source_key
from knowledge.storing import still_current, store, store_failure

__all__ = [
    "MAX_CHUNKS", "MAX_PATH", "MEDIA_TYPES", "Brought", "LoadReport", "delete_document", "load_document", "load_folder",
    "load_one", "mark_superseded",
]  # fmt: skip


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


def load_folder(
    *,
    assistant: Assistant,
    folder: Path,
    into: str = "",
    brought: Brought | None = None,
    progress: Progress | None = None,
) -> LoadReport:
    """Loads every file below ``folder`` that is of a kind that is read; one that fails is reported and the rest load.

    Args:
        into: a folder that is put before the paths.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    files = files_below(folder)
    report = LoadReport()
    for done, file in enumerate(files, start=1):
        path = path_of(file, folder, into)
        try:
            size = file.stat().st_size
            data = file.read_bytes() if size <= conversion_limits().file_bytes else b""
        except OSError as error:
            report.failed.append((path, f"It cannot be read: {error.strerror}."))
            continue
        load_one(assistant=assistant, path=path, data=data, report=report, size=size, brought=brought)
        if progress:
            progress(done, len(files), path)
    return report


def files_below(folder: Path) -> list[Path]:
    """Files of the kinds that are read, in order; no hidden ones, and no links that lead out of the folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    root = folder.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in MEDIA_TYPES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
        and path.resolve().is_relative_to(root)
    )


def path_of(file: Path, folder: Path, into: str = "") -> str:
    """What the document of a file is called."""
    return "/".join(filter(None, (into.strip("/"), file.relative_to(folder).as_posix())))


def load_one(
    *,
    assistant: Assistant,
    path: str,
    data: bytes,
    report: LoadReport,
    size: int | None = None,
    brought: Brought | None = None,
    tick: Tick | None = None,
) -> Document:
    """`load_document` with its outcome noted in ``report``."""
    key = source_key(assistant.pk, path)
    columns = ("digest", "index_digest", "state")
    before = Document.objects.filter(assistant=assistant, source_key=key).values_list(*columns).first()
    document = load_document(assistant=assistant, path=path, data=data, size=size, brought=brought, tick=tick)
    if document.state == Document.State.FAILED:
        report.failed.append((path, document.error))
    elif before == (document.digest, document.index_digest, Document.State.READY):
        report.unchanged.append(path)
    else:
        report.loaded.append(path)
        if document.masked:
            report.masked[path] = document.masked_words
    return document


def load_document(
    *,
    assistant: Assistant,
    path: str,
    data: bytes,
    media_type: str | None = None,
    size: int | None = None,
    brought: Brought | None = None,
    tick: Tick | None = None,
) -> Document:
    """Stores a document and its chunks; the same content again changes nothing, other content is its next version.

    It is masked first, as the assistant's privacy policy says of documents. One that cannot be read or scrubbed is
    stored as failed with a sentence and nothing of its text; its former chunks stay searchable.

    Raises:
        Overtaken: ``brought`` names the file of an upload, and a newer one of the same path was faster.
    """
    brought = brought or Brought()
    try:
        prepared = prepare(assistant=assistant, path=path, data=data, media_type=media_type, size=size, tick=tick)
    except NotPrepared as refused:
        return store_failure(refused.source, str(refused), brought)
    return still_current(prepared, brought) or store(prepared, brought, tick)


@transaction.atomic
def delete_document(*, document: Document, actor: User | None = None, via: str = "page") -> None:
    """Removes a document with its chunks and versions; passages of logged turns keep their own copy of the text."""
    audit(
        assistant=document.assistant, actor=actor, action="document.deleted", target=document.path[:200],
        details={"via": via},
    )  # fmt: skip
    document.delete()


@transaction.atomic
def mark_superseded(
    *, documents: Sequence[Document], superseded: bool, by: Document | None = None, actor: User | None = None
) -> int:
    """Says whether another document counts instead: a superseded one is still retrieved, but no questions are written
    from it. The next version of the file decides anew. Returns how many changed.

    Args:
        by: the document that counts now, of the same assistant.
    """
    changed = [
        d for d in documents if d.superseded != superseded or (superseded and by and d.superseded_by_id != by.pk)
    ]
    for document in changed:
        document.superseded = superseded
        document.superseded_at = timezone.now() if superseded else None
        document.superseded_by = by if superseded else None
        document.save(update_fields=["superseded", "superseded_at", "superseded_by", "updated_at"])
        action = "document.superseded" if superseded else "document.in_force"
        details = {"by": by.path[:200]} if superseded and by else {}
        audit(assistant=document.assistant, actor=actor, action=action, target=document.path[:200], details=details)
    return len(changed)

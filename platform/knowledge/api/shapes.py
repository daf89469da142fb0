"""What the API of documents takes and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from knowledge.models import Document, DocumentVersion, Upload, UploadedFile

MAX_LIMIT = 500
MAX_FILES_LISTED = 1_000
_Text = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]
Id = Annotated[int, Field(ge=1, lt=2**63)]


class _Shape(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DocumentQuery(_Query):
    """Parameters of the list; all that are given must hold."""

    path: _Text | None = Field(default=None, description="Exactly as it was given when it was loaded.")
    folder: _Text | None = Field(default=None, description="Documents below this folder.")
    state: Literal["ready", "failed", "pending"] | None = None
    superseded: bool | None = None
    q: _Text | None = Field(default=None, description="Words of the title or the path.")
    after: Id | None = Field(default=None, description="`next` of the page before.")
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 100


class UploadQuery(_Query):
    """Which files of an upload are told."""

    outcome: Literal["waiting", "ready", "loaded", "unchanged", "unpacked", "discarded", "failed"] | None = None
    after: Id | None = Field(default=None, description="`next` of the page before.")
    limit: Annotated[int, Field(ge=1, le=MAX_FILES_LISTED)] = MAX_FILES_LISTED


class Decision(_Query):
    """Which files of a preview; all that wait when none is named."""

    files: Annotated[list[Id], Field(max_length=MAX_FILES_LISTED)] | None = None


class VersionShape(_Shape):
    """One version; the newest first."""

    number: int
    title: str
    digest: str
    size: int
    pages: int | None
    chunks: int
    chunks_kept: int = Field(description="Chunks that were in the version before, with their vectors.")
    via: str
    created_at: str


class DocumentShape(_Shape):
    """A document as the assistant knows it: masked. ``error``: why the last file that came for it was not taken."""

    id: int
    path: str
    title: str
    state: str
    error: str
    notes: list[str]
    version: int
    superseded: bool
    superseded_by: int | None
    media_type: str
    size: int
    pages: int | None
    digest: str
    chunks: int
    masked: dict[str, int]
    created_at: str
    updated_at: str


class DocumentDetail(DocumentShape):
    """With its versions, and its text where it was asked for."""

    versions: list[VersionShape]
    text: str | None = None


class DocumentPage(_Shape):
    """Documents in the order in which they came first."""

    documents: list[DocumentShape]
    next: int | None = None


class FileShape(_Shape):
    """What became of one file."""

    id: int
    path: str
    archive: str
    size: int
    outcome: str
    sentence: str
    document: int | None


class UploadShape(_Shape):
    """An upload and its files. It is over when ``state`` is succeeded, failed or cancelled; each file has an outcome of
    its own."""

    id: int
    state: str
    preview: bool
    error: str
    done: int
    total: int
    counts: dict[str, int] = Field(description="Files by outcome.")
    files: list[FileShape]
    next: int | None = None


class Deleted(_Shape):
    """What is gone."""

    deleted: int


class Decided(_Shape):
    """How many files were taken or discarded."""

    files: int


def document_shape(document: Any) -> dict[str, Any]:
    """Of a document annotated with ``n_chunks``."""
    return {
        "id": document.pk,
        "path": document.path,
        "title": document.title,
        "state": document.state,
        "error": document.error,
        "notes": document.notes.splitlines(),
        "version": document.version,
        "superseded": document.superseded,
        "superseded_by": document.superseded_by_id,
        "media_type": document.media_type,
        "size": document.size,
        "pages": document.pages,
        "digest": document.digest,
        "chunks": document.n_chunks,
        "masked": document.masked,
        "created_at": document.created_at.isoformat(),
        "updated_at": document.updated_at.isoformat(),
    }


def document_detail(document: Document, versions: list[DocumentVersion], *, text: bool) -> dict[str, Any]:
    told = {**document_shape(document), "versions": [version_shape(version) for version in versions]}
    return {**told, "text": document.text} if text else told


def version_shape(version: DocumentVersion) -> dict[str, Any]:
    names = ("number", "title", "digest", "size", "pages", "chunks", "chunks_kept", "via")
    return {**{name: getattr(version, name) for name in names}, "created_at": version.created_at.isoformat()}


def upload_shape(
    upload: Upload, files: list[UploadedFile], counts: dict[str, int], after: int | None
) -> dict[str, Any]:
    open_files = counts.get("waiting", 0)
    total = sum(counts.values())
    return {
        "id": upload.pk,
        "state": upload.state,
        "preview": upload.preview,
        "error": upload.error,
        "done": total - open_files,
        "total": total,
        "counts": counts,
        "files": [
            {
                "id": file.pk, "path": file.path, "archive": file.archive, "size": file.size, "outcome": file.outcome,
                "sentence": file.sentence, "document": file.document_id,
            }
            for file in files
        ],
        "next": after,
    }  # fmt: skip

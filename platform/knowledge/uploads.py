"""Uploads: files are stored, encrypted, and read, cut and embedded by a process of its own, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from django.contrib.auth.models import User
from django.db import transaction

from assistants.background import launch
from assistants.models import Assistant
from assistants.policies import Rules, rules_of
from assistants.services import audit
from assistants.vault import PayloadUnreadable, decrypt, encrypt
from knowledge.models import Upload, UploadedFile
from knowledge.scrubbing import scrub_path, table_of
from knowledge.services import MAX_BYTES, MEDIA_TYPES, LoadReport, load_one

MAX_FILES = 100
MAX_TOTAL_BYTES = 50_000_000
MAX_PATH = 300
MAX_SHOWN = 500
"""Placeholders may be longer than what they stand for."""
READABLE = ", ".join(sorted(MEDIA_TYPES))


class UploadRefused(ValueError):
    """The upload as a whole cannot be taken; the message says why and what to do."""


@dataclass(frozen=True)
class IncomingFile:
    """``path``: as the browser named it, with folders when a folder was chosen."""

    path: str
    size: int
    data: bytes


def start_upload(
    *, assistant: Assistant, files: Sequence[IncomingFile], folder: str = "", created_by: User | None = None
) -> Upload:
    """Stores the files and launches their loading; what is wrong with a single file is said on its row.

    Args:
        folder: put before every path.

    Raises:
        UploadRefused: no file, too many, or too much together.
    """
    if not files:
        raise UploadRefused("Choose at least one file.")
    if len(files) > MAX_FILES:
        raise UploadRefused(f"At most {MAX_FILES} files at a time, not {len(files)}. Upload the rest afterwards.")
    if sum(file.size for file in files) > MAX_TOTAL_BYTES:
        raise UploadRefused(
            f"Together the files are larger than {MAX_TOTAL_BYTES // 1_000_000} MB. Upload them in parts."
        )
    named = {clean_path(file.path, folder): file for file in files}
    try:
        rules = rules_of(assistant)
    except ValueError:  # said of each file when it is read
        rules = None
    with transaction.atomic():
        upload = Upload.objects.create(assistant=assistant, created_by=created_by)
        # Of two files with one name the last counts.
        distinct = {path: _row(upload, file, path, rules) for path, file in named.items()}
        UploadedFile.objects.bulk_create(distinct.values())
        audit(
            assistant=assistant, actor=created_by, action="documents.uploaded", target=str(upload),
            details={"files": len(distinct)},
        )  # fmt: skip
        transaction.on_commit(lambda: launch(upload))
    return upload


def clean_path(path: str, folder: str = "") -> str:
    """A relative path without tricks: no root, no "..", no control characters."""
    parts = PurePosixPath(f"{folder}/{path}".replace("\\", "/")).parts
    kept = ["".join(c for c in part if c.isprintable()).strip() for part in parts if part not in ("/", ".", "..")]
    return "/".join(part for part in kept if part)[-MAX_PATH:].lstrip("/") or "unnamed.txt"


def perform(upload: Upload) -> None:
    """Takes in the files that wait, in the performing process; started again, it goes on with the next one."""
    waiting = list(upload.files.filter(outcome=UploadedFile.Outcome.WAITING).defer("data"))
    total = upload.files.count()
    for done, file in enumerate(waiting, start=total - len(waiting)):
        upload.beat(stage=f"reading {file.path}", done=done, total=total)
        take_in(file)
    upload.beat(stage="", done=total, total=total)


def take_in(file: UploadedFile) -> None:
    """Loads one file as a document and notes the outcome in a sentence; its bytes are not kept."""
    report = LoadReport()
    assistant = file.upload.assistant
    try:
        path, _, data = decrypt(file.data).partition(b"\0")
    except PayloadUnreadable:
        document = None
        report.failed.append(
            (file.path, "No key opens what was uploaded (RATCHET_DATA_KEY has changed). Upload it again.")
        )
    else:
        document = load_one(assistant=assistant, path=path.decode(), data=data, report=report, size=file.size)
        file.path = document.path
    if report.failed:
        file.outcome, file.sentence = UploadedFile.Outcome.FAILED, report.failed[0][1]
    elif report.unchanged or document is None:
        file.outcome, file.sentence = UploadedFile.Outcome.UNCHANGED, "The same text is there already; nothing changed."
    else:
        chunks = document.chunks.count()
        version = f"Version {document.version}" if document.version > 1 else "New"
        note = "; another document counts now, it says" if document.superseded else ""
        file.outcome = UploadedFile.Outcome.LOADED
        masked = f" Masked: {document.masked_words}." if document.masked else ""
        file.sentence = f"{version}: “{document.title}”, {chunks} chunk{'' if chunks == 1 else 's'}{note}.{masked}"
    file.document, file.data = document, b""
    file.save(update_fields=["outcome", "sentence", "document", "data", "path"])


def _row(upload: Upload, file: IncomingFile, path: str, rules: Rules | None) -> UploadedFile:
    shown = scrub_path(rules=rules, path=path, table=table_of(path))[:MAX_SHOWN]
    row = UploadedFile(upload=upload, path=shown, size=file.size)
    if Path(path).suffix.lower() not in MEDIA_TYPES:
        row.sentence = f"Files of this kind are not read. Use {READABLE}."
    elif file.size > MAX_BYTES:
        row.sentence = (
            f"The file is larger than {MAX_BYTES // 1_000_000} MB. Split it, or leave out what nobody asks for."
        )
    else:
        row.data = encrypt(path.encode() + b"\0" + file.data)
        return row
    row.outcome, row.data = UploadedFile.Outcome.FAILED, b""
    return row

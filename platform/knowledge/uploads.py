"""Uploads: files are stored, encrypted, then read, masked, cut and embedded one by one in a process of its own.

A preview stops before the embedding and waits for somebody to take or discard each file (`knowledge.deciding`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Sum

from assistants.background import WorkCancelled, launch
from assistants.models import Assistant
from assistants.policies import Rules, rules_of
from assistants.policy_model import DocumentMasking
from assistants.services import audit
from assistants.vault import PayloadUnreadable, decrypt, encrypt
from knowledge.conversion import formats
from knowledge.conversion.process import READER
from knowledge.deciding import forget_undecided
from knowledge.limits import conversion_limits, megabytes, upload_limits
from knowledge.loading import Brought, NotPrepared, Tick, prepare
from knowledge.models import Upload, UploadedFile
from knowledge.previews import preview_of, sentence_of_document
from knowledge.scrubbing import scrub_path, table_of
from knowledge.sections import UnreadableDocument
from knowledge.services import LoadReport, load_one
from knowledge.storing import Overtaken

MAX_PATH = 300
MAX_SHOWN = 500
"""Placeholders may be longer than what they stand for."""
MAX_NAMES_READ = 100
"""Names of files that are searched for people while somebody waits."""
_BEAT_SECONDS = 1.5
_LOST_KEY = "No key opens what was uploaded (RATCHET_DATA_KEY has changed). Upload it again."


class UploadRefused(ValueError):
    """The upload as a whole cannot be taken; the message says why and what to do."""


@dataclass(frozen=True)
class IncomingFile:
    """``path``: as the browser named it, with folders when a folder was chosen. ``data``: the bytes, or what reads them
    when they are wanted, so that many files are not in memory together."""

    path: str
    size: int
    data: bytes | Callable[[], bytes]

    def content(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data()


def start_upload(
    *,
    assistant: Assistant,
    files: Sequence[IncomingFile],
    folder: str = "",
    created_by: User | None = None,
    preview: bool = False,
    via: str = "page",
) -> Upload:
    """Stores the files and launches their loading; what is wrong with a single file is said on its row.

    Args:
        folder: put before every path.
        preview: only show what would be taken.

    Raises:
        UploadRefused: no file, too many, or too much together.
    """
    limits = upload_limits()
    if not files:
        raise UploadRefused("Choose at least one file.")
    if len(files) > limits.files:
        raise UploadRefused(
            f"At most {limits.files:,} files at a time, not {len(files):,}. Upload the rest afterwards."
        )
    if sum(file.size for file in files) > limits.total_bytes:
        raise UploadRefused(
            f"Together the files are larger than {megabytes(limits.total_bytes)}. Upload them in parts."
        )
    # Of two files with one name the last counts.
    named = {clean_path(file.path, folder): file for file in files}
    rules = _rules_of(assistant)
    if rules is not None and rules.documents == DocumentMasking.EVERYTHING and len(named) > MAX_NAMES_READ:
        rules = None  # names made up until the worker reads the file: names of people take time to be found
    with transaction.atomic():
        upload = Upload.objects.create(assistant=assistant, created_by=created_by, preview=preview, via=via[:160])
        for path, file in named.items():
            _row(upload, path, file.size, file.content, rules).save()
        audit(
            assistant=assistant, actor=created_by, action="documents.uploaded", target=str(upload),
            details={"files": len(named), "via": upload.via, "preview": preview},
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
    forget_undecided(upload.assistant)
    total = upload.files.count()
    while (file := upload.files.filter(outcome=UploadedFile.Outcome.WAITING).defer("data").first()) is not None:
        waiting = upload.files.filter(outcome=UploadedFile.Outcome.WAITING).count()
        total = max(total, upload.files.count())
        upload.beat(stage=f"reading {file.path}", done=total - waiting, total=total)
        file.upload = upload
        take_in(file, tick=_beating(upload))
    upload.beat(stage="", done=total, total=total)


def take_in(file: UploadedFile, tick: Tick | None = None) -> None:
    """Loads, previews or unpacks one file and notes the outcome in a sentence. Its bytes are kept only for as long as
    somebody still has to decide."""
    try:
        path, _, data = decrypt(file.data).partition(b"\0")
    except PayloadUnreadable:
        _note(file, UploadedFile.Outcome.FAILED, _LOST_KEY)
        return
    if formats.is_archive(path.decode()):
        _unpack(file, path.decode(), data)
    elif file.upload.preview:
        _look(file, path.decode(), data, tick)
    else:
        _load(file, path.decode(), data, tick)


def _load(file: UploadedFile, path: str, data: bytes, tick: Tick | None) -> None:
    report = LoadReport()
    upload = file.upload
    brought = Brought(by=upload.created_by, via=upload.via, file=file)
    try:
        document = load_one(
            assistant=upload.assistant, path=path, data=data, report=report, size=file.size, brought=brought, tick=tick
        )
    except Overtaken as newer:
        _note(file, UploadedFile.Outcome.DISCARDED, str(newer))
        return
    file.path, file.document = document.path[:MAX_SHOWN], document
    if report.failed:
        _note(file, UploadedFile.Outcome.FAILED, report.failed[0][1])
    elif report.unchanged:
        _note(file, UploadedFile.Outcome.UNCHANGED, "The same text is there already; nothing changed.")
    else:
        _note(file, UploadedFile.Outcome.LOADED, sentence_of_document(document))


def _look(file: UploadedFile, path: str, data: bytes, tick: Tick | None) -> None:
    try:
        prepared = prepare(assistant=file.upload.assistant, path=path, data=data, size=file.size, tick=tick)
    except NotPrepared as refused:
        file.path = refused.source.path[:MAX_SHOWN]
        _note(file, UploadedFile.Outcome.FAILED, str(refused))
        return
    file.path = prepared.source.path[:MAX_SHOWN]
    file.document = prepared.source.stored().first()
    if prepared.current():
        _note(file, UploadedFile.Outcome.UNCHANGED, "The same text is there already; nothing would change.")
        return
    preview = preview_of(prepared, file.document)
    file.outcome, file.preview, file.sentence = UploadedFile.Outcome.READY, preview.as_json(), preview.sentence
    _store(file, "outcome", "sentence", "preview", "path", "document")


def _unpack(file: UploadedFile, path: str, data: bytes) -> None:
    """The files of an archive become rows of their own, all of them in one transaction, so that a process that is
    killed leaves the archive as it was."""
    upload, folder = file.upload, str(PurePosixPath(path).parent)
    rules = _rules_of(upload.assistant)
    limits = conversion_limits()
    unpacked = upload.files.exclude(archive="").aggregate(n=Sum("size"))["n"] or 0
    left = limits.expanded_bytes - unpacked
    room = limits.files - upload.files.exclude(pk=file.pk).count()
    count = 0
    with transaction.atomic():
        try:
            if left <= 0 or room <= 0:
                raise UnreadableDocument("What came with it fills the upload already. Upload it by itself.")
            fitting = replace(limits, expanded_bytes=left, files=room)
            for member in READER.unpack(data, limits=fitting, tick=_watching(upload)):
                row = _row(upload, clean_path(member.name, folder), member.size, lambda m=member: m.data, rules)  # type: ignore[misc]
                row.archive = file.path
                if member.problem:
                    row.outcome, row.sentence, row.data = UploadedFile.Outcome.FAILED, member.problem, b""
                row.save()
                count += 1
        except UnreadableDocument as error:
            before = f" {count} of its files were read before that." if count else ""
            _note(file, UploadedFile.Outcome.FAILED, f"{error}{before}")
            return
        sentence = f"{count} file{'' if count == 1 else 's'} in it." if count else "There is nothing in it."
        _note(file, UploadedFile.Outcome.UNPACKED if count else UploadedFile.Outcome.FAILED, sentence)


def _note(file: UploadedFile, outcome: str, sentence: str) -> None:
    file.outcome, file.sentence, file.data, file.preview = outcome, sentence, b"", None
    _store(file, "outcome", "sentence", "document", "data", "path", "preview")


def _store(file: UploadedFile, *fields: str) -> None:
    """Raises WorkLost: another process goes on with the upload."""
    with transaction.atomic():
        file.save(update_fields=fields)
        file.upload.hold()


def _row(upload: Upload, path: str, size: int, content: Callable[[], bytes], rules: Rules | None) -> UploadedFile:
    """Not yet saved. What would be refused anyway keeps no bytes."""
    shown = scrub_path(rules=rules, path=path, table=table_of(path))[:MAX_SHOWN]
    row = UploadedFile(upload=upload, path=shown, size=size)
    limits = upload_limits()
    most = limits.total_bytes if formats.is_archive(path) else limits.file_bytes
    if formats.media_type_of(path) == formats.UNKNOWN and not formats.is_archive(path):
        row.sentence = formats.why_not_read(path)
    elif size > most:
        row.sentence = f"The file is larger than {megabytes(most)}. Split it, or leave out what nobody asks for."
    else:
        row.data = encrypt(path.encode() + b"\0" + content())
        return row
    row.outcome, row.data = UploadedFile.Outcome.FAILED, b""
    return row


def _rules_of(assistant: Assistant) -> Rules | None:
    """None when they cannot be read: that is said of each file when it is taken in."""
    try:
        return rules_of(assistant)
    except ValueError:
        return None


def _beating(upload: Upload) -> Tick:
    """Shows life and notices a cancel, not more often than needed."""
    last = time.monotonic()

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last >= _BEAT_SECONDS:
            last = time.monotonic()
            upload.beat()

    return tick


def _watching(upload: Upload) -> Tick:
    """Notices a cancel without writing: inside a transaction a beat would keep the row from everybody else."""

    def tick() -> None:
        if Upload.objects.filter(pk=upload.pk).exclude(cancel_requested_at=None).exists():
            raise WorkCancelled

    return tick

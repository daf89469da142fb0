"""The file of a backup: a tar with a manifest that vouches for everything in it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from config.backups.programs import BackupError

FORMAT = 1
MANIFEST, DATABASE = "manifest.json", "database.dump"
_MOST_MANIFEST = 64 * 2**20
_CHUNK = 2**20


@dataclass(frozen=True)
class Manifest:
    """``files``: sha256 by name within the archive. ``schema``: digest of all migrations of the code that wrote it."""

    made_at: str
    version: str
    server: str
    schema: str
    with_secrets: bool
    counts: Mapping[str, int]
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT


def write(target: Path, manifest: Manifest, members: Mapping[str, Path]) -> Manifest:
    """Writes ``members`` (name → file) to ``target``, which appears whole or not at all, for its owner alone.

    Digests are of the bytes that were written: a file that changes meanwhile is no damaged backup.

    Raises:
        BackupError: the target exists.
    """
    if target.exists():
        raise BackupError(f"{target} exists. Name another file.")
    half = target.with_name(f"{target.name}.{os.getpid()}.part")
    digests: dict[str, str] = {}
    handle = os.open(half, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
            for name, path in members.items():
                if (digest := _add(tar, name, path)) is not None:
                    digests[name] = digest
            full = Manifest(**{**asdict(manifest), "files": digests})
            text = json.dumps(asdict(full), indent=1, sort_keys=True).encode()
            entry = tarfile.TarInfo(MANIFEST)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
            file.flush()
        with half.open("rb") as again:
            os.fsync(again.fileno())
        half.rename(target)
    finally:
        half.unlink(missing_ok=True)
    return full


def _add(tar: tarfile.TarFile, name: str, path: Path) -> str | None:
    """None: it is gone meanwhile (a checkpoint, a spooled turn that was stored)."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        entry = tarfile.TarInfo(name)
        entry.size = os.fstat(file.fileno()).st_size
        entry.mode = 0o600
        reader = _Digesting(file, entry.size)
        tar.addfile(entry, reader)
    return reader.digest.hexdigest()


class _Digesting(io.RawIOBase):
    """As many bytes as were announced, zeros for what a shrinking file lost: a tar cannot hold fewer."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self.file, self.left, self.digest = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        found = self.file.read(wanted)
        found += b"\0" * (wanted - len(found))
        self.left -= len(found)
        self.digest.update(found)
        return found


def read_manifest(source: Path) -> Manifest:
    """Raises BackupError: not a backup of ours, of a later format, or broken."""
    for entry, file in _entries(source):
        if entry.name == MANIFEST:
            if entry.size > _MOST_MANIFEST:
                break
            return _parse(file.read(), source)
    raise BackupError(f"{source} is no backup, or ends too early: it has no manifest.")


def _parse(text: bytes, source: Path) -> Manifest:
    try:
        values: dict[str, Any] = json.loads(text)
        if values["format"] > FORMAT:
            raise BackupError(f"{source} was written by a later version ({values['version']}). Update first.")
        return Manifest(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{source} is no backup: its manifest cannot be read.") from error


def unpack(source: Path, manifest: Manifest, folder: Path) -> None:
    """Writes what the manifest names below ``folder``, and nothing else.

    Raises:
        BackupError: a file is missing, was changed, or would lie elsewhere.
    """
    missing = set(manifest.files)
    for entry, file in _entries(source):
        if entry.name == MANIFEST:
            continue
        if entry.name not in missing:
            raise BackupError(f"{source} holds something that its manifest does not name. It was changed.")
        parts = Path(entry.name).parts
        if not parts or entry.name.startswith("/") or ".." in parts:
            raise BackupError(f"{source} holds a file that would lie elsewhere. It was changed.")
        path = folder.joinpath(*parts)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != manifest.files[entry.name]:
            raise BackupError(f"{entry.name} in {source} is damaged (sha256 differs). Take another backup.")
        missing.discard(entry.name)
    if missing:
        raise BackupError(f"{source} ends too early: {len(missing)} files are missing.")


def _entries(source: Path) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """Plain files only: links and devices are passed over, and are then missing."""
    try:
        with tarfile.open(source, mode="r:") as tar:
            for entry in tar:
                if entry.isfile() and (file := tar.extractfile(entry)) is not None:
                    yield entry, file
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(f"{source} is no backup, or ends too early.") from error
    except OSError as error:
        raise BackupError(f"{source} cannot be read: {error.strerror or error}.") from error

"""Items on disk while the server is away. Several processes may share a folder.

A file holds items of one kind, one a line. It is written under another name, synced and renamed, so that it is whole or
not there; of what a crash left half written, the whole lines are read. One process at a time sends from a folder; that
is an economy, not a need, since the server knows an item again. Files hold what users wrote, in clear: they have mode
0600, and go when they have been sent.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .items import PATHS, Entry

try:
    import fcntl
except ImportError:  # Windows: two processes may send the same file, which changes nothing
    fcntl = None  # type: ignore[assignment]

_STALE_SECONDS = 60


class Spool:
    """``max_bytes`` is for all processes together; files older than ``max_seconds`` are given up. Raises OSError."""

    def __init__(self, folder: Path, *, max_bytes: int, max_seconds: float) -> None:
        self._folder, self._max_bytes, self._max_seconds = folder, max_bytes, max_seconds

    def write(self, entries: Sequence[Entry]) -> bool:
        """Entries of one kind. False: the spool is full."""
        lines = b"".join(entry.body + b"\n" for entry in entries)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sum(_stat(path)[0] for path in self._folder.iterdir()) + len(lines) > self._max_bytes:
            return False
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.{entries[0].kind}.jsonl"
        part = self._folder / f"{name}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._folder / name)
        except OSError:
            with suppress(OSError):
                part.unlink()  # the entries are still in memory
            raise
        return True

    def files(self) -> list[Path]:
        """Oldest first: whole files, and half written ones whose writer must be gone."""
        stale = time.time() - _STALE_SECONDS
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(p for p in found if p.suffix == ".jsonl" or (p.suffix == ".part" and _stat(p)[1] < stale))

    def is_old(self, path: Path) -> bool:
        return _stat(path)[1] < time.time() - self._max_seconds

    def read(self, path: Path) -> tuple[list[Entry], int]:
        """The whole entries of a file, and the number of lines that are not."""
        kind = path.name.split(".")[1]
        entries, damaged = [], 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                item = json.loads(line) if line.endswith(b"\n") and kind in PATHS else None
            except (ValueError, RecursionError):
                item = None
            if isinstance(item, dict):
                entries.append(Entry(kind, str(item.get("id") or item.get("turn")), line[:-1]))
            else:
                damaged += 1
        return entries, damaged

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """True within for one process at a time. The system takes the lock back when the process ends, however it ends,
        and a forked child does not have it."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield _take(lock)
        finally:
            os.close(lock)


def _take(lock: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _stat(path: Path) -> tuple[int, float]:
    """Bytes, and when it was last changed."""
    try:
        found = path.stat()
    except OSError:  # sent by another process meanwhile
        return 0, time.time()
    return found.st_size, found.st_mtime

"""The rows of one trace brought together, however far apart they stand, in memory that does not grow with the file.

Rows go to unlinked temporary files by a hash of their trace, encrypted under a key that only this process has: what a
killed import leaves behind is nothing. Then one part after the other is read, grouped and handed on.
"""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from capture.imports.traces import MAX_PIECES, Piece
from capture.imports.units import ImportProblem

MAX_PARTS = 128
PART_BYTES = 24 * 1024 * 1024
"""What a part is meant to hold. A part that holds more than four times that is cut again."""
_NONCE = 12
_HEAD = struct.Struct(">I")


def parts_for(size: int) -> int:
    """How many parts a spool of that many bytes wants; the same for the same size, so that the order is repeatable."""
    return max(1, min(MAX_PARTS, size // PART_BYTES + 1))


@dataclass
class _Group:
    place: tuple[int, int]
    size: int = 0
    rows: int = 0
    pieces: list[Piece] = field(default_factory=list)
    _last: tuple[int, int] | None = None

    def add(self, place: tuple[int, int], size: int, piece: Piece) -> None:
        self.size += size
        self.rows += place != self._last  # a record may bring several pieces
        self._last = place
        if len(self.pieces) <= MAX_PIECES:
            self.pieces.append(piece)


class Spool:
    """Where the pieces of traces wait. A context manager: leaving it gives the disk back.

    Args:
        folder: where the temporary files go.
        parts: as `parts_for` gives it.
        level: of cutting; keeps the hashes of one level apart from those of the next.
    """

    def __init__(self, folder: Path, parts: int, level: int = 0) -> None:
        self.folder, self.level = folder, level
        self.count = 0
        self._cipher = AESGCM(AESGCM.generate_key(128))
        self._number = 0
        self._files: list[BinaryIO] = []
        try:
            for _ in range(parts):
                self._files.append(cast("BinaryIO", tempfile.TemporaryFile(dir=folder, buffering=1 << 16)))  # noqa: SIM115
        except OSError as error:
            self.__exit__()
            raise ImportProblem(f"No temporary file can be made in {folder}: {error.strerror}.") from None
        self._sizes = [0] * parts

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    @property
    def size(self) -> int:
        return sum(self._sizes)

    def add(self, trace: str, place: tuple[int, int], piece: Piece) -> None:
        """Keeps a piece. ``place``: (file, line) that it came from.

        Raises:
            ImportProblem: the disk is full.
        """
        # JSON as ASCII: lone surrogates are kept. A time, the one other type that tables hold, becomes its text.
        plain = json.dumps([trace, *place, piece], default=str).encode()
        self._number += 1
        nonce = self._number.to_bytes(_NONCE, "big")
        sealed = nonce + self._cipher.encrypt(nonce, plain, None)
        part = zlib.crc32(f"{self.level}/{trace}".encode("utf-8", "surrogatepass")) % len(self._files)
        try:
            self._files[part].write(_HEAD.pack(len(sealed)) + sealed)
        except OSError as error:
            raise ImportProblem(f"No room for the rows of traces in {self.folder}: {error.strerror}.") from None
        self._sizes[part] += _HEAD.size + len(sealed)
        self.count += 1

    def traces(self) -> Iterator[tuple[str, tuple[int, int], int, int, list[Piece]]]:
        """(trace, where its first row stood, bytes, rows, pieces) of every trace; the order is the same each time.

        Of a trace of more than `MAX_PIECES` rows the rest is dropped, all but one so that the loss can be noted.
        """
        for part, file in enumerate(self._files):
            if self._sizes[part] > 4 * PART_BYTES and self.level < 3:
                yield from self._cut_again(part)
            else:
                yield from self._grouped(part)
            file.close()

    def _grouped(self, part: int) -> Iterator[tuple[str, tuple[int, int], int, int, list[Piece]]]:
        groups: dict[str, _Group] = {}
        for (trace, file, line, piece), size in self._read(part):
            groups.setdefault(trace, _Group((file, line))).add((file, line), size, piece)
        for trace, group in groups.items():
            yield trace, group.place, group.size, group.rows, group.pieces

    def _cut_again(self, part: int) -> Iterator[tuple[str, tuple[int, int], int, int, list[Piece]]]:
        with Spool(self.folder, parts_for(self._sizes[part]), self.level + 1) as finer:
            for (trace, file, line, piece), _ in self._read(part):
                finer.add(trace, (file, line), piece)
            yield from finer.traces()

    def _read(self, part: int) -> Iterator[tuple[list[Any], int]]:
        file = self._files[part]
        file.seek(0)
        while head := file.read(_HEAD.size):
            (length,) = _HEAD.unpack(head)
            sealed = file.read(length)
            yield json.loads(self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)), length

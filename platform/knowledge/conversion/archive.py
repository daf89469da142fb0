"""Zip archives, one file after the other, with a bound on everything that an archive can lie about."""

from __future__ import annotations

import contextlib
import io
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from knowledge.conversion.formats import is_archive
from knowledge.conversion.shapes import ConversionLimits, Member
from knowledge.sections import UnreadableDocument

_PIECE = 1 << 16
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1
_OF_SYSTEMS = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini")


def read_archive(data: bytes, *, limits: ConversionLimits) -> Iterator[Member]:
    """Its files in order. What is wrong with one is said of it and the rest are read; folders, and what systems put
    in beside the files, are passed over. Ends when ``limits.expanded_bytes`` have been read, with a word on each file
    after that.

    Raises:
        UnreadableDocument: no archive, damaged, or with too many files.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [info for info in archive.infolist() if not info.is_dir() and not _is_of_a_system(info.filename)]
            if len(files) > limits.files:
                raise UnreadableDocument(f"It holds {len(files):,} files; at most {limits.files:,} are taken.")
            left = limits.expanded_bytes
            for info in files:
                member = _read(archive, info, left, limits)
                left -= len(member.data)
                yield member
    except UnreadableDocument:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise UnreadableDocument("This is no zip archive, or it is damaged.") from None


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int, limits: ConversionLimits) -> Member:
    name = _name(info)
    if problem := _problem(info, name):
        return Member(_harmless(name), info.file_size, problem=problem)
    most = min(limits.file_bytes, left)
    try:
        data = _unpack(archive, info, most)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError, ValueError):
        return Member(name, info.file_size, problem="It is damaged, or packed in a way that is not known.")
    if data is not None:
        return Member(name, len(data), data)
    if most < limits.file_bytes:
        whole = f"{limits.expanded_bytes // 1_000_000} MB"
        return Member(name, info.file_size, problem=f"The archive unpacks to more than {whole}; this was not read.")
    problem = f"The file is larger than {limits.file_bytes // 1_000_000} MB."
    return Member(name, info.file_size, problem=problem)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes | None:
    """None when it is larger than ``most``, whatever its directory says."""
    if info.file_size > most:
        return None
    parts: list[bytes] = []
    size = 0
    with archive.open(info) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            if size > most:
                return None
            parts.append(piece)
    return b"".join(parts)


def _name(info: zipfile.ZipInfo) -> str:
    """Old packers write names in the code page of their machine and many write UTF-8 without saying so."""
    name = info.filename
    if not info.flag_bits & _UTF8_NAME:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _problem(info: zipfile.ZipInfo, name: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        return "Its name leads out of the archive, so it was not read."
    if stat.S_ISLNK(info.external_attr >> 16):
        return "It is a link to another file, so it was not read."
    if info.flag_bits & _ENCRYPTED:
        return "It is protected with a password."
    if is_archive(name):
        return "Archives inside an archive are not opened."
    return ""


def _harmless(name: str) -> str:
    """As it may stand in a list: without the steps that lead out."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")) or "unnamed"


def _is_of_a_system(name: str) -> bool:
    parts = [part.lower() for part in name.replace("\\", "/").split("/")]
    return any(part in _OF_SYSTEMS or part.startswith("._") for part in parts)

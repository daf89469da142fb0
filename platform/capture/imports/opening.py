"""What a file is, seen from its first bytes."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

from capture.imports.jsonarray import list_within
from capture.imports.sources import Container, Source, delimiter_of, parquet_library
from capture.imports.units import ImportProblem

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF32 = b"\x00\x00\xfe\xff"
_BEGIN = b"\x00{["
"""How JSON begins in these encodings where they have no mark."""
_QUESTION = re.compile(rb'"question"\s*:')


def open_source(path: Path, number: int) -> Source:
    """Looks at the first bytes of a file.

    Raises:
        ImportProblem: missing, empty, not readable, not UTF-8, or Parquet without pyarrow.
    """
    if not path.exists():
        raise ImportProblem(f"There is no file {path}. Check the path.")
    if not path.is_file():
        raise ImportProblem(f"{path} is not a file. Name the export itself.")
    try:
        with path.open("rb") as raw:
            head = raw.read(4)
            zipped = head[:2] == b"\x1f\x8b"
            raw.seek(0)
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if zipped else raw
            start = stream.read(1 << 16)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ImportProblem(f"{path.name} begins like gzip and is damaged. Export it again.") from None
    except OSError as error:
        raise ImportProblem(f"{path.name} cannot be read: {error.strerror or error}.") from None
    size = path.stat().st_size
    if head == b"PAR1":
        return Source(path, number, "parquet", False, size, _parquet_columns(path))
    return _text_source(path, number, zipped, size, start)


def _text_source(path: Path, number: int, zipped: bool, size: int, start: bytes) -> Source:
    if start[:2] in _UTF16 or (start[:2].count(0) == 1 and not start[:1].strip(_BEGIN)) or start[:4] == _UTF32:
        raise ImportProblem(f"{path.name} is UTF-16 or UTF-32. Save it as UTF-8.")
    if b"\x00" in start[:1024] and start.lstrip()[:1] not in (b"{", b"["):
        raise ImportProblem(f"{path.name} is not text. Take JSONL, JSON, CSV or Parquet, zipped with gzip or not.")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise ImportProblem(f"{path.name} is empty.")
    container: Container
    if text[:1] == b"[":
        container = "array"
    elif text[:1] == b"{" and (begins := _list_of_ours(start)):
        return Source(path, number, "within", zipped, size, begins=begins)
    elif text[:1] == b"{":
        container = "lines" if _is_lines(text, whole=len(start) < 1 << 16) else "object"
    else:
        container = "table"
    columns: tuple[str, ...] = ()
    if container == "table":
        line = text.splitlines()[0]
        try:
            header = line.decode()
        except UnicodeDecodeError:
            raise ImportProblem(f"{path.name} is not UTF-8. Save it as UTF-8.") from None
        columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=delimiter_of(header))))
    return Source(path, number, container, zipped, size, columns)


def _list_of_ours(start: bytes) -> int | None:
    """Where the list begins in one object ``{"turns": [...]}``, as the log API takes and gives it; None: it is none.

    Lines that hold such lists are no such object, nor is one whose turns have no question: others call messages so."""
    begins = list_within(start, frozenset({b"turns"}))
    if begins is None or not _QUESTION.search(start, begins):
        return None
    line, _, more = start.strip().partition(b"\n")
    if not more:
        return begins
    try:
        json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return begins
    return None


def _is_lines(start: bytes, *, whole: bool) -> bool:
    """Does every record stand on a line of its own? Otherwise the file is one object over many lines."""
    line, newline, _ = start.partition(b"\n")
    if not newline and not whole:
        return True  # a first line of more than 64 kB
    stripped = line.strip()
    if stripped in (b"{", b""):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        # A broken first line of a JSONL file ends like a whole one; a first line of a spread object does not.
        return stripped.endswith(b"}")
    return True


def _parquet_columns(path: Path) -> tuple[str, ...]:
    parquet = parquet_library()
    arrow = import_module("pyarrow")
    try:
        return tuple(parquet.read_schema(path).names)
    except (arrow.ArrowException, OSError, ValueError):
        raise ImportProblem(f"{path.name} begins like Parquet and cannot be read. Export it again.") from None

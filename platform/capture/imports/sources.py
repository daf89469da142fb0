"""Files as records: JSONL, a JSON array or object, CSV, Parquet; gzip or not. One record in memory at a time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pydantic_core

from capture.imports.jsonarray import TextBehind, elements
from capture.imports.units import ImportProblem, Row
from capture.imports.values import is_too_deep

MAX_RECORD = 32 * 1024 * 1024
"""Bytes of one line, element or cell."""
MAX_OBJECT = 256 * 1024 * 1024
"""Bytes of a file that is one JSON object."""
_TOO_LONG = "longer than 32 MB"
_NO_OBJECT = (ValueError, OverflowError)
"""What Python says of dates after the year 9999, say, which Parquet may hold."""
_BEHIND_OBJECT = "no end of the object, or another list, behind the list: one list a file"
Container = Literal["lines", "array", "within", "object", "table", "parquet"]
"""``within``: the array of an object, from its byte ``begins`` on."""
Read = Callable[[], Any]
"""Decodes a record; raises `_Unreadable`. Not called for what is skipped."""


class _Unreadable(Exception):
    pass


@dataclass
class Source:
    """One file. ``number``: its place on the command line, from 0."""

    path: Path
    number: int
    container: Container
    zipped: bool
    size: int
    columns: tuple[str, ...] = ()
    begins: int = 0

    def __post_init__(self) -> None:
        self.records = 0  # that the last call of `rows` came by, skipped ones too
        self._raw: BinaryIO | None = None
        self._share = 0.0

    def share(self) -> float:
        """How much of the file has been read, 0 to 1 (of the compressed bytes when zipped)."""
        if self.container != "parquet" and self._raw is not None and not self._raw.closed:
            self._share = self._raw.tell() / max(self.size, 1)
        return min(self._share, 1.0)

    def rows(self, skip: int = 0) -> Iterator[Row]:
        """Records after the first ``skip``, which are passed over undecoded.

        Raises:
            ImportProblem: the file is damaged or ends early.
        """
        self.records = 0
        records = self._records()
        while True:
            try:
                line, size, read = next(records)
            except StopIteration:
                self._share = 1.0
                return
            except (EOFError, zlib.error, gzip.BadGzipFile):
                raise ImportProblem(f"{self.path.name} is cut off or damaged after {self._where()}.") from None
            except OSError as error:  # pyarrow's errors are OSErrors too, with text of their own
                reason = f"cannot be read after {self._where()}: {error.strerror or type(error).__name__}"
                raise ImportProblem(f"{self.path.name} {reason}.") from None
            self.records += 1
            if self.records > skip:
                yield self._row(line, size, read)

    def _where(self) -> str:
        return f"record {self.records:,}" if self.records else "its beginning"

    def _row(self, line: int, size: int, read: Read) -> Row:
        try:
            return Row(self.number, line, size, read())
        except _Unreadable as error:
            return Row(self.number, line, size, problem=str(error))

    def _records(self) -> Iterator[tuple[int, int, Read]]:
        if self.container == "parquet":
            yield from self._parquet()
            return
        with self.path.open("rb") as raw:
            self._raw = raw
            stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if self.zipped else raw
            readers = {
                "lines": _lines, "array": _array, "within": self._within, "object": _object, "table": self._table,
            }  # fmt: skip
            yield from readers[self.container](stream)

    def _within(self, stream: BinaryIO) -> Iterator[tuple[int, int, Read]]:
        yield from _array(stream, before=stream.read(self.begins))

    def _table(self, stream: BinaryIO) -> Iterator[tuple[int, int, Read]]:
        # Bytes that are not UTF-8 come through as lone surrogates, so that they cost a record and not the file.
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        csv.field_size_limit(MAX_RECORD)
        first_line = lines.readline(MAX_RECORD)
        rest = csv.reader(_with_first(first_line, lines), delimiter=delimiter_of(first_line))
        columns: list[str] | None = None
        while True:
            try:
                cells = next(rest)
            except StopIteration:
                return
            except csv.Error as error:
                yield rest.line_num, 0, _failing(_TOO_LONG if "larger" in str(error) else "not CSV")
                continue
            if not any(cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                continue
            size = sum(map(len, cells))
            yield rest.line_num, size, _cells(columns, cells)

    def _parquet(self) -> Iterator[tuple[int, int, Read]]:
        parquet = parquet_library()
        with parquet.ParquetFile(self.path) as file:
            total, line = file.metadata.num_rows, 0
            mean = self.size // max(total, 1)
            for batch in file.iter_batches(batch_size=256):
                lazy = _LazyBatch(batch)
                for place in range(batch.num_rows):
                    line += 1
                    self._share = line / max(total, 1)
                    yield line, mean, lazy.reader(place)


class _LazyBatch:
    """Rows of a Parquet batch as objects, made when the first is read: batches that are skipped cost nothing."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._rows: list[Any] | None = None
        self._one_by_one = False

    def reader(self, place: int) -> Read:
        def read() -> Any:
            if self._rows is None and not self._one_by_one:
                try:
                    self._rows = self._batch.to_pylist()
                except _NO_OBJECT:
                    self._one_by_one = True
            if self._rows is not None:
                return self._rows[place]
            try:
                return self._batch.slice(place, 1).to_pylist()[0]
            except _NO_OBJECT:
                raise _Unreadable("a date or number that cannot be read") from None

        return read


def parquet_library() -> Any:
    """Raises ImportProblem when pyarrow is not installed."""
    try:
        return import_module("pyarrow.parquet")
    except ImportError:
        raise ImportProblem("Reading Parquet needs pyarrow: pip install pyarrow, or export JSONL or CSV.") from None


def delimiter_of(header: str) -> str:
    """Comma, semicolon or tab: whichever cuts the header into the most columns."""
    return max(",;\t", key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def decode(line: bytes) -> Any:
    """One JSON value.

    Raises:
        _Unreadable: not UTF-8, not JSON, or nested more than 60 deep.
    """
    try:
        value = pydantic_core.from_json(line, cache_strings="keys")
    except ValueError:
        value = _decode_slowly(line)
    if is_too_deep(value):
        raise _Unreadable("nested too deeply")
    return value


def _decode_slowly(line: bytes) -> Any:
    """Takes half a surrogate pair, which the fast parser does not, and knows what is wrong with the rest."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError:
        raise _Unreadable("not UTF-8") from None
    except RecursionError:
        raise _Unreadable("nested too deeply") from None
    except ValueError:
        raise _Unreadable("not JSON") from None


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, Read]]:
    line = 0
    while raw := stream.readline(MAX_RECORD + 1):
        line += 1
        if line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if len(raw) > MAX_RECORD:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_RECORD)
            yield line, 0, _failing(_TOO_LONG)
        elif raw.strip():
            yield line, len(raw), _decoding(raw)


def _array(stream: BinaryIO, before: bytes = b"") -> Iterator[tuple[int, int, Read]]:
    line = 0
    try:
        for line, raw in enumerate(elements(stream, MAX_RECORD, before=before), start=1):
            if raw is None:
                yield line, 0, _failing(_TOO_LONG)
            else:
                yield line, len(raw), _decoding(raw)
    except TextBehind:
        yield line + 1, 0, _failing(_BEHIND_OBJECT if before else "text behind the end of the array: one array a file")


def _object(stream: BinaryIO) -> Iterator[tuple[int, int, Read]]:
    raw = stream.read(MAX_OBJECT + 1)
    if len(raw) > MAX_OBJECT:
        yield 1, 0, _failing("one JSON object of more than 256 MB; export JSONL or a JSON array")
        return
    yield 1, len(raw), _decoding(raw.removeprefix(b"\xef\xbb\xbf"))


def _with_first(first_line: str, lines: io.TextIOWrapper) -> Iterator[str]:
    yield first_line
    while line := lines.readline(MAX_RECORD):
        yield line


def _cells(columns: list[str], cells: list[str]) -> Read:
    def read() -> Any:
        if len(cells) != len(columns):
            raise _Unreadable("other columns than the header")
        if any(_has_surrogate(cell) for cell in cells):
            raise _Unreadable("not UTF-8")
        return dict(zip(columns, cells, strict=True))

    return read


def _has_surrogate(cell: str) -> bool:
    if cell.isascii():
        return False
    try:
        cell.encode()
    except UnicodeEncodeError:
        return True
    return False


def _decoding(raw: bytes) -> Read:
    return lambda: decode(raw)


def _failing(problem: str) -> Read:
    def read() -> Any:
        raise _Unreadable(problem)

    return read

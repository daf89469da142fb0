"""The rows of a file that somebody imports, as lines of JSON: a file of lines, or Parquet as exports write it. Pure."""

from __future__ import annotations

import json
from typing import Any

MAX_ROWS = 100_000
MAX_EXPANDED = 256_000_000
"""Characters of a Parquet file's rows, unpacked: it is packed, so its size says little."""
BATCH = 200
_ARCHIVES = {
    b"PK\x03\x04": "The file is an archive. Unpack it and import the file of one method.",
    b"\x1f\x8b": "The file is packed with gzip. Unpack it.",
}


class ImportFailed(ValueError):
    """Nothing of the file could be taken; the message says why."""


def lines_of(content: bytes) -> list[tuple[int, str]]:
    """(number from 1, line) of every row.

    Raises:
        ImportFailed: neither lines of text nor Parquet, damaged, or too large.
    """
    for head, why in _ARCHIVES.items():
        if content.startswith(head):
            raise ImportFailed(why)
    lines = _of_parquet(content) if content.startswith(b"PAR1") else _of_text(content)
    if len(lines) > MAX_ROWS:
        raise _too_many(len(lines))
    return lines


def _of_text(content: bytes) -> list[tuple[int, str]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportFailed(f"The file is not UTF-8 (from byte {error.start}). Save it as UTF-8.") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _of_parquet(content: bytes) -> list[tuple[int, str]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ImportFailed("Reading Parquet needs the extra “parquet”: pip install 'ratchet[parquet]'.") from None
    lines: list[tuple[int, str]] = []
    size = 0
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            facts = file.metadata
            if facts.num_rows > MAX_ROWS:
                raise _too_many(facts.num_rows)
            if sum(facts.row_group(place).total_byte_size for place in range(facts.num_row_groups)) > MAX_EXPANDED:
                raise _too_large()
            for batch in file.iter_batches(_rows_at_once(facts)):
                for row in _rows_of(batch, len(lines) + 1):
                    # A column that this row has nothing in stands there too: as if it were left out.
                    kept = {name: value for name, value in row.items() if value is not None}
                    line = json.dumps(kept, ensure_ascii=False, default=str)
                    size += len(line)
                    lines.append((len(lines) + 1, line))
                    if size > MAX_EXPANDED:
                        raise _too_large()
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise ImportFailed("The file begins like Parquet and cannot be read. Export it again.") from None
    return lines


def _rows_of(batch: Any, first: int) -> list[dict[str, Any]]:
    """Raises ImportFailed: a value that Python cannot hold, as a date after the year 9999."""
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError):
        last = first + batch.num_rows - 1
        raise ImportFailed(f"A row from {first:,} to {last:,} holds a date or number that cannot be read.") from None
    return found


def _rows_at_once(facts: Any) -> int:
    """A value that stands once in a file may be that of every row: so many rows that even then they fit."""
    groups = [facts.row_group(place) for place in range(facts.num_row_groups)]
    columns = [group.column(place).total_uncompressed_size for group in groups for place in range(group.num_columns)]
    return max(1, min(BATCH, MAX_EXPANDED // max(1, *columns, 1)))


def _too_many(rows: int) -> ImportFailed:
    return ImportFailed(f"The file has {rows:,} rows; at most {MAX_ROWS:,} are taken. Split it.")


def _too_large() -> ImportFailed:
    return ImportFailed(f"Unpacked, the file is larger than {MAX_EXPANDED // 1_000_000} MB. Split it.")

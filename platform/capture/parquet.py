"""Turns as Parquet, row group by row group, through a buffer that is emptied as it fills.

The columns are the fields of `capture.shapes.TurnShape`. What has no fixed fields (metadata, what was masked) becomes
JSON text, since every file of an export must have the same columns.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from capture.shapes import TurnShape

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 1_000
GROUP_CHARACTERS = 8_000_000
"""A row group is closed at either: turns differ in size a thousandfold, and a group is held in memory."""


class ParquetMissing(Exception):
    """pyarrow is not installed here."""


class PieceBuffer:
    """What Parquet's writer writes to; `take` empties it. The writer never goes back, so nothing else is needed."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """There is nothing behind it."""

    def close(self) -> None:
        """What is left is still to be taken."""

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def parquet_pieces(batches: Iterator[Sequence[Mapping[str, Any]]]) -> Iterator[bytes]:
    """Batches of `turn_rows` records as the bytes of one Parquet file.

    Raises:
        ParquetMissing: before the first piece.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ParquetMissing from error

    schema = arrow_schema()
    buffer = PieceBuffer()
    with pq.ParquetWriter(pa.PythonFile(buffer, mode="w"), schema, compression="zstd") as writer:
        for group in _groups(batches):
            writer.write_table(pa.Table.from_pylist(group, schema=schema), row_group_size=GROUP_ROWS)
            yield buffer.take()
    yield buffer.take()


def arrow_schema() -> pa.Schema:
    """Columns and types of an export."""
    import pyarrow as pa

    return pa.schema([pa.field(name, _arrow_type(info.annotation)) for name, info in TurnShape.model_fields.items()])


def _groups(batches: Iterator[Sequence[Mapping[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for batch in batches:
        for record in batch:
            group.append(_row(record))
            size += len(record["response"]) + sum(len(context["text"]) for context in record["contexts"])
            if len(group) == GROUP_ROWS or size >= GROUP_CHARACTERS:
                yield group
                group, size = [], 0
    if group:
        yield group


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **record,
        "time": datetime.fromisoformat(record["time"]),
        "metadata": _text(record["metadata"]),
        "masked": _text(record["masked"]),
        "contexts": [{**context, "metadata": _text(context["metadata"])} for context in record["contexts"]],
        "feedback": [
            {
                **given,
                "value": None if given["value"] is None else float(given["value"]),
                "time": datetime.fromisoformat(given["time"]),
                "received_at": datetime.fromisoformat(given["received_at"]),
            }
            for given in record["feedback"]
        ],
    }


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _arrow_type(kind: Any) -> pa.DataType:
    """Arrow's type of a field's annotation; what has no fixed fields is text."""
    import pyarrow as pa

    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if kind in plain:
        return plain[kind]
    if kind is datetime:
        return pa.timestamp("us", tz="UTC")
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # optional; a value of several kinds is a number
        kinds = [part for part in inner if part is not type(None)]
        return _arrow_type(kinds[-1])
    if origin is list and get_origin(inner[0]) is not dict:
        return pa.list_(_arrow_type(inner[0]))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return pa.struct([pa.field(name, _arrow_type(info.annotation)) for name, info in kind.model_fields.items()])
    return pa.string()

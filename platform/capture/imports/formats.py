"""The formats by name, and how one is told from another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from capture.imports import langfuse, mapped, openai_chat, phoenix, ratchet
from capture.imports.mapped import ColumnMap
from capture.imports.sources import Source
from capture.imports.traces import Piece
from capture.imports.units import Converted, ImportProblem

NAMES = ("ratchet", "openai", "langfuse", "phoenix", "csv")
_LOOKED_AT = 50
"""Records at the start of a file that may tell its format."""


@dataclass(frozen=True)
class Flat:
    """One record is one unit."""

    name: str
    convert: Callable[[Any], Converted]


@dataclass(frozen=True)
class Grouped:
    """The records of a trace are one unit."""

    name: str
    pieces: Callable[[Any], list[tuple[str, Piece]]]
    assemble: Callable[[str, list[Piece]], Converted]


Format = Flat | Grouped
_RECOGNISE: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "phoenix": phoenix.recognises,
    "langfuse": langfuse.recognises,
    "openai": openai_chat.recognises,
    "ratchet": ratchet.recognises,
}


def format_of(sources: Sequence[Source], given: str | None, mapping: ColumnMap | None) -> Format:
    """The format that was asked for, or the one that the first records of every file have.

    Raises:
        ImportProblem: the format cannot be told, the files have several, or a mapping does not fit.
    """
    name = given or ("csv" if mapping else _detected(sources))
    if name != "csv":
        if mapping:
            raise ImportProblem(f"A mapping is for --format csv, not {name}. Leave one of the two away.")
        return _known(name)
    for source in sources:
        if source.columns:
            mapping = mapping or mapped.map_of_header(source.columns)
            if mapping:
                mapped.check_columns(mapping, source.columns)
    if mapping is None:
        columns = ", ".join(column[:60] for column in sources[0].columns[:20]) or "no columns"
        raise ImportProblem(
            f"Say which columns are what: --map question=COLUMN,response=COLUMN (the file has {columns})."
        )
    chosen = mapping
    return Flat("csv", lambda record: mapped.convert(record, chosen))


def _known(name: str) -> Format:
    if name == "langfuse":
        return Grouped(name, langfuse.pieces, langfuse.assemble)
    if name == "phoenix":
        return Grouped(name, phoenix.pieces, phoenix.assemble)
    return Flat(name, {"openai": openai_chat.convert, "ratchet": ratchet.convert}[name])


def _detected(sources: Sequence[Source]) -> str:
    found: dict[str, str] = {}
    for source in sources:
        name = _told(source)
        if name is None:
            raise ImportProblem(
                f"Cannot tell what {source.path.name} is. Name it with --format {'|'.join(NAMES)}"
                f"{'; with csv, --map says which columns are what' if source.columns else ''}."
            )
        found.setdefault(name, source.path.name)
    if len(found) > 1:
        (one, first), (two, second) = list(found.items())[:2]
        raise ImportProblem(f"{first} is {one} and {second} is {two}. Import them one after the other.")
    return next(iter(found))


def _told(source: Source) -> str | None:
    for record in _beginning(source):
        for name, recognises in _RECOGNISE.items():
            if recognises(record) and (name != "ratchet" or source.container != "table"):
                return name
    return "csv" if mapped.map_of_header(source.columns) else None


def _beginning(source: Source) -> Iterator[Mapping[str, Any]]:
    for row in islice(source.rows(), _LOOKED_AT):
        if isinstance(row.data, Mapping):
            yield row.data

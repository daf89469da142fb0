"""Tables with columns of any name: which column is what, said as ``question=COLUMN,…`` or in a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capture.imports.contents import documents_of, history_of, limited, messages_of
from capture.imports.scores import Score, feedback_of
from capture.imports.units import Converted, ImportProblem, Payload, Refused
from capture.imports.values import (
    content_id,
    fit_id,
    fit_metadata,
    fit_name,
    fit_tags,
    is_missing,
    moment,
    number,
    structure,
    text,
    whole,
)

MANY = ("contexts", "tags")
"""May be named several times; for contexts the order of the columns is the order of rank."""
OPINIONS = ("thumb", "rating", "correction", "comment")
TARGETS = (
    "id", "conversation", "question", "response", "history", *MANY, "model", "adapter", "latency_ms", "prompt_tokens",
    "completion_tokens", "time", "user", *OPINIONS, "feedback_time",
)  # fmt: skip
_METADATA = "metadata."
MAX_COLUMNS = 500
_PAIR = re.compile(r"""([^=,"]+)=[ ]*(?:("(?:[^"]|"")*")[ ]*|([^",][^,]*)?)(?:,|$)""", re.DOTALL)
_PLAIN = re.compile(r"[\w./-]+(?: [\w./-]+)*")


@dataclass(frozen=True)
class ColumnMap:
    """{target: columns}. A target is one of `TARGETS`, or ``metadata.NAME``."""

    columns: Mapping[str, tuple[str, ...]]

    def text(self) -> str:
        """As `parse_map` reads it."""
        pairs = [f"{target}={_quoted(column)}" for target, columns in self.columns.items() for column in columns]
        return ",".join(pairs)


def parse_map(given: str) -> ColumnMap:
    """Pairs ``target=column`` between commas. A column that holds a comma, begins with a quote or is surrounded by
    spaces goes into quotes, in which a quote is written twice: ``question="What, then?"``.

    Raises:
        ImportProblem: a pair without a target or a column, quotes that do not match, an unknown target, one that is
            given twice, or no question or response.
    """
    pairs: list[tuple[str, str]] = []
    place = 0
    while place < len(given):
        found = _PAIR.match(given, place)
        if found is None:
            raise _bad(f"{_shown(given[place:].partition(',')[0])!r} is no pair, or its quotes do not match")
        target, quoted, bare = found.groups()
        pairs.append((target.strip(), quoted[1:-1].replace('""', '"') if quoted else (bare or "").strip()))
        place = found.end()
    return _checked(pairs)


def read_map(path: Path) -> ColumnMap:
    """A JSON object {target: column, or a list of columns}. Raises as `parse_map`, also for a file that is no such."""
    try:
        found = json.loads(path.read_bytes()[: 1 << 20])
    except OSError as error:
        raise ImportProblem(f"The mapping file {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ImportProblem(f"The mapping file {path.name} is not JSON in UTF-8.") from None
    if not isinstance(found, dict):
        raise _bad("the file must hold an object {target: column}")
    pairs = []
    for target, columns in found.items():
        for column in columns if isinstance(columns, list) else [columns]:
            if not isinstance(column, str):
                raise _bad(f"{_shown(target)!r} must name a column, or a list of columns")
            pairs.append((target, column))
    return _checked(pairs)


def merged(base: ColumnMap | None, over: ColumnMap | None) -> ColumnMap | None:
    """Both, where ``over`` wins target by target."""
    if base is None or over is None:
        return over or base
    return ColumnMap({**base.columns, **over.columns})


def map_of_header(columns: Iterable[str]) -> ColumnMap | None:
    """The mapping of a table whose columns are named like the targets; None when question or response is not there."""
    names = [name for name in columns if name in TARGETS or _is_metadata(name)]
    return ColumnMap({name: (name,) for name in names}) if {"question", "response"} <= set(names) else None


def check_columns(mapping: ColumnMap, columns: Sequence[str]) -> None:
    """Raises ImportProblem when the mapping names a column that the table does not have, or one that it has twice."""
    wanted = [column for names in mapping.columns.values() for column in names]
    missing = next((column for column in wanted if column not in columns), None)
    if missing is not None:
        known = ", ".join(_shown(name) for name in columns[:20])
        raise _bad(f"there is no column {_shown(missing)!r}; the file has {known}")
    double = next((column for column in wanted if list(columns).count(column) > 1), None)
    if double is not None:
        raise _bad(f"the file has the column {_shown(double)!r} twice")


def _quoted(column: str) -> str:
    return column if _PLAIN.fullmatch(column) else '"' + column.replace('"', '""') + '"'


def _checked(pairs: Sequence[tuple[str, str]]) -> ColumnMap:
    columns: dict[str, tuple[str, ...]] = {}
    if len(pairs) > MAX_COLUMNS:
        raise _bad(f"it names more than {MAX_COLUMNS} columns")
    for target, column in pairs:
        if target not in TARGETS and not _is_metadata(target):
            raise _bad(f"there is no {_shown(target)!r}; choose from {', '.join(TARGETS)}, metadata.NAME")
        if not column:
            raise _bad(f"{target} names no column")
        if target in columns and target not in MANY:
            raise _bad(f"{target} is given twice")
        columns[target] = (*columns.get(target, ()), column)
    if not {"question", "response"} <= columns.keys():
        raise _bad("it must name the columns of question and response")
    return ColumnMap(columns)


def _is_metadata(target: str) -> bool:
    return target.startswith(_METADATA) and len(target) > len(_METADATA)


def _bad(what: str) -> ImportProblem:
    return ImportProblem(f"The mapping does not work: {what}. Write question=COLUMN,response=COLUMN,…")


def _shown(name: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in name)[:60]


def convert(record: Any, mapping: ColumnMap) -> Converted:
    """One turn per row.

    Raises:
        Refused: not an object, or no question or response in it.
    """
    if not isinstance(record, Mapping):
        raise Refused("not an object")
    converted = Converted()
    row = _Cells(record, mapping)
    turn: Payload = {"question": text(row.one("question")), "response": text(row.one("response"))}
    for name in ("question", "response"):
        if not turn[name]:
            raise Refused(f"no {name}")
    raw_time = row.one("time")
    turn |= {
        "history": history_of(messages_of(row.one("history")) or [], converted.notes, system=True),
        "contexts": _contexts(row, converted.notes),
        "tags": fit_tags([tag for cell in row.all("tags") for tag in _several(cell)], converted.notes),
        "model": fit_name(row.one("model")),
        "adapter": fit_name(row.one("adapter"), 120),
        "latency_ms": number(row.one("latency_ms")),
        "prompt_tokens": whole(row.one("prompt_tokens")),
        "completion_tokens": whole(row.one("completion_tokens")),
        "time": moment(raw_time),
        "metadata": fit_metadata(row.metadata(), converted.notes),
        "conversation": fit_id(row.one("conversation"), prefix="csv"),
    }
    if turn["time"] is None and not is_missing(raw_time):
        raise Refused("a time that is not ISO 8601 or a number")
    turn = {key: value for key, value in turn.items() if value not in (None, "", [], {})}
    turn["id"] = fit_id(row.one("id"), prefix="csv") or content_id("csv", turn)
    converted.turns = [turn]
    converted.feedback = _feedback(row, turn["id"], turn.get("time", ""), converted.notes)
    return converted


class _Cells:
    def __init__(self, record: Mapping[str, Any], mapping: ColumnMap) -> None:
        self.record = record
        self.columns = mapping.columns

    def all(self, target: str) -> list[Any]:
        found = [self.record.get(column) for column in self.columns.get(target, ())]
        return [value for value in found if not is_missing(value)]

    def one(self, target: str) -> Any:
        return next(iter(self.all(target)), None)

    def metadata(self) -> dict[str, Any]:
        names = [target for target in self.columns if _is_metadata(target)]
        found = {name.removeprefix(_METADATA): structure(self.one(name)) for name in names}
        user = self.one("user")
        kept = {key: value for key, value in found.items() if not is_missing(value)}
        return kept if is_missing(user) else {**kept, "user": structure(user)}


def _contexts(row: _Cells, notes: list[str]) -> list[dict[str, Any]]:
    """A column holds one passage as text, or a JSON list of passages."""
    found = [context for cell in row.all("contexts") for context in documents_of(_listed(cell), notes)]
    return limited(list({context["text"]: context for context in found}.values()), notes)


def _listed(cell: Any) -> Any:
    value = structure(cell)
    return [value] if isinstance(value, str) else value


def _several(cell: Any) -> list[Any]:
    value = structure(cell)
    return list(value) if isinstance(value, list | tuple) else [value]


def _feedback(row: _Cells, turn: str, asked_at: str, notes: list[str]) -> list[Payload]:
    when = moment(row.one("feedback_time")) or asked_at
    prefix = f"csv:{turn}" if len(turn) <= 80 else content_id("csv", turn)
    found: list[Payload] = []
    for target in OPINIONS:
        given = row.one(target)
        if is_missing(given):
            continue
        kind = "CORRECTION" if target == "correction" else ""
        label = text(given)
        score = Score(target, target, number(given), "" if target == "rating" else label, kind, time=when)
        found += feedback_of(score, turn=turn, prefix=prefix, notes=notes)
    return found

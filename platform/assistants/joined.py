"""Rows of several tables, read by one statement that is built and planned once, as instances of their models.

For the few that stand between a question and its answer: through the ORM most of their time went into writing the same
SQL anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db import connection, models
from django.db.models.expressions import Col

from assistants.prepared import run_prepared


@dataclass(frozen=True)
class Table:
    """``alias``: its name in the statement; ``later``: columns that are read when somebody asks for them."""

    model: type[models.Model]
    alias: str
    later: frozenset[str] = field(default_factory=frozenset)

    @cached_property
    def names(self) -> list[str]:
        return [each.attname for each in self._fields]

    @cached_property
    def columns(self) -> list[str]:
        return [f'"{self.alias}"."{each.column}"' for each in self._fields]

    def instance(self, row: Sequence[Any]) -> Any:
        """As the ORM makes it of a row; None where an outer join found none."""
        if row[self._key] is None:
            return None
        values = list(row)
        for place, column, converters in self._converters:
            for convert in converters:
                values[place] = convert(values[place], column, connection)
        return self.model.from_db(connection.alias, self.names, values)

    @cached_property
    def _fields(self) -> list[models.Field[Any, Any]]:
        return [each for each in self.model._meta.concrete_fields if each.name not in self.later]

    @cached_property
    def _key(self) -> int:
        return next(place for place, each in enumerate(self._fields) if each.primary_key)

    @cached_property
    def _converters(self) -> list[tuple[int, Any, list[Any]]]:
        return [
            (place, Col(self.model._meta.db_table, each), converters)
            for place, each in enumerate(self._fields)
            if (converters := each.get_db_converters(connection))
        ]


class Joined:
    """``behind``: what stands behind FROM, where each table has its alias."""

    def __init__(self, *tables: Table, behind: str) -> None:
        self._tables, self._behind = tables, behind

    def first(self, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """An instance of each table, of the first row (one query); None: there is no row."""
        rows = run_prepared(self._statement, values, binary=False)
        if not rows:
            return None
        found, place = [], 0
        for table in self._tables:
            found.append(table.instance(rows[0][place : place + len(table.names)]))
            place += len(table.names)
        return tuple(found)

    @cached_property
    def _statement(self) -> str:
        columns = ", ".join(column for table in self._tables for column in table.columns)
        return f"SELECT {columns} FROM {self._behind}"  # noqa: S608 - names of our own models

"""The key of a request with its assistant, read by a statement that is built once.

Every request of every program begins with it. Through the ORM it cost a millisecond and a half, mostly to write the
same SQL anew, which was a third of a single post; remembering keys instead would let a revoked one live on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

from django.db import connection, models
from django.db.models.expressions import Col

from assistants.models import ApiKey, Assistant
from assistants.prepared import run_prepared

M = TypeVar("M", bound=models.Model)


def find_key(digest: str) -> ApiKey | None:
    """The key with this digest, usable or not; its ``assistant`` is loaded (one query)."""
    rows = run_prepared(_statement(), {"digest": digest}, binary=False)
    if not rows:
        return None
    row = rows[0]
    own = len(ApiKey._meta.concrete_fields)
    key = _instance(ApiKey, row[:own])
    key.assistant = _instance(Assistant, row[own:])
    return key


@lru_cache(maxsize=1)
def _statement() -> str:
    columns = [
        f'"{model._meta.db_table}"."{field.column}"'
        for model in (ApiKey, Assistant)
        for field in model._meta.concrete_fields
    ]
    keys, assistants = ApiKey._meta.db_table, Assistant._meta.db_table
    return (
        f'SELECT {", ".join(columns)} FROM "{keys}" '  # noqa: S608 - names of our own models
        f'JOIN "{assistants}" ON "{assistants}".id = "{keys}".assistant_id WHERE "{keys}".digest = %(digest)s'
    )


def _instance(model: type[M], row: Sequence[Any]) -> M:
    """As the ORM makes it of a row."""
    fields = model._meta.concrete_fields
    values = list(row)
    for place, column, converters in _converters(model):
        for convert in converters:
            values[place] = convert(values[place], column, connection)
    return model.from_db(connection.alias, [field.attname for field in fields], values)


@lru_cache(maxsize=2)
def _converters(model: type[models.Model]) -> list[tuple[int, Any, list[Any]]]:
    found = []
    for place, field in enumerate(model._meta.concrete_fields):
        if converters := field.get_db_converters(connection):
            found.append((place, Col(model._meta.db_table, field), converters))
    return found

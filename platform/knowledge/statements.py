"""Statements that stand between a question and its answer: prepared once on each connection, answered in binary.

Django's cursor writes every value into the text and has the server parse and plan it anew; for a search that was most
of its time. These are planned once (`assistants.prepared`), and long bytes come back as they are instead of as
hexadecimal digits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connection

from assistants.prepared import preparing


def rows(sql: str, params: Mapping[str, Any]) -> list[Any]:
    """
    Args:
        sql: with ``%(name)s``; each with a cast, since nothing else says its type.

    Raises:
        django.db.DatabaseError: as Django's own cursor.
    """
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    started = time.monotonic()
    raw: psycopg.Connection[Any] = connection.connection
    with connection.wrap_database_errors, preparing(raw), psycopg.Cursor(raw) as cursor:
        cursor.execute(sql, params, prepare=True, binary=True)
        found = cursor.fetchall()
    if connection.queries_logged:  # so that who counts a page's queries counts these
        connection.queries_log.append({"sql": sql, "time": f"{time.monotonic() - started:.3f}"})
    return found

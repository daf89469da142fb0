"""How PostgreSQL plans each statement of the two requests that annotators wait for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

LARGE = 5_000
"""Rows from which on a table must not be read whole."""
_ITEM = re.compile(rb'name="item" value="(\d+)"')


def plans(queue: int) -> dict[str, Any]:
    """Numbers of statements, and whatever reads a large table whole. Everything is rolled back."""
    from django.contrib.auth.models import User
    from django.db import connection, transaction
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client(headers={"X-Requested-With": "fetch"})
    client.force_login(User.objects.get(username="annotator-0"))
    base = f"/admin/label/{queue}/"
    found: dict[str, Any] = {}
    whole: dict[str, str] = {}
    with transaction.atomic():
        page = _ITEM.search(client.get(base, headers={"Host": "localhost"}).content)
        item = page[1].decode() if page else ""
        label = {"choice": "good", "mark-1": "relevant", "seconds": "9"}
        ahead = ""
        for name, path, form in (("next", "ahead", {}), ("submit", "submit", label)):
            with CaptureQueriesContext(connection) as captured:
                answer = client.post(
                    f"{base}{path}", {"item": item, "shown": ahead, **form}, headers={"Host": "localhost"}
                )
            if answer.status_code != 200:
                raise RuntimeError(f"{path} answered {answer.status_code}")
            ahead = str(answer.json().get("item", ""))
            found[f"{name}_queries"] = len(captured)
            for query in captured:
                for table in _read_whole(connection, query["sql"]):
                    whole[f"{name}: {table}"] = query["sql"]
        transaction.set_rollback(True)
    for place, statement in whole.items():
        print(f"-- {place}\n{statement}", file=sys.stderr, flush=True)
    return {**found, "read_whole": sorted(whole)}


def _read_whole(connection: Any, statement: str) -> set[str]:
    """Large tables in a sequential scan of this statement."""
    if not statement.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")):
        return set()
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (FORMAT JSON) " + statement)
        (plan,) = cursor.fetchone()
        tables = {node["Relation Name"] for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"}
        cursor.execute("SELECT relname, reltuples FROM pg_class WHERE relname = ANY(%s)", [list(tables)])
        return {name for name, rows in cursor.fetchall() if rows > LARGE}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)

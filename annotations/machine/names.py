"""The filters by name and version of the list of machine labels."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AllValuesFieldListFilter
from django.db import connection
from django.http import HttpRequest

from annotations.machine.models import MachineLabel
from assistants.access import assistants_of

MOST = 100
"""Offered; an address may name any."""
# By leaps through the index: DISTINCT reads every label, and a program that scores has one for each turn.
_LEAPS = f"""
WITH RECURSIVE found AS (
    SELECT one.assistant, first.name, first.version FROM unnest(%(assistants)s::bigint[]) AS one (assistant), LATERAL (
        SELECT name, version FROM {MachineLabel._meta.db_table} WHERE assistant_id = one.assistant
        ORDER BY name, version LIMIT 1) AS first
    UNION ALL
    SELECT found.assistant, next.name, next.version FROM found, LATERAL (
        SELECT name, version FROM {MachineLabel._meta.db_table}
        WHERE assistant_id = found.assistant AND (name, version) > (found.name, found.version)
        ORDER BY name, version LIMIT 1) AS next
)
SELECT name, version FROM found LIMIT %(most)s
"""  # noqa: S608 - a name of a table


def versions_of(assistants: list[int]) -> set[tuple[str, str]]:
    """(name, version) of machines that said something of their turns; at most ten times `MOST`."""
    with connection.cursor() as cursor:
        cursor.execute(_LEAPS, {"assistants": assistants, "most": 10 * MOST})
        return set(cursor.fetchall())


class MachineFilter(AllValuesFieldListFilter):
    """Of ``name`` or ``version``: Django's, which offers what it reads from the rows of the list."""

    def __init__(self, field: Any, request: HttpRequest, *rest: Any, field_path: str) -> None:
        super().__init__(field, request, *rest, field_path=field_path)  # type: ignore[misc]
        admin = rest[-1]
        versions = getattr(request, "_machine_versions", None)
        if versions is None:
            own = assistants_of(request.user, *admin.view_roles)
            versions = versions_of(list(own.order_by().values_list("pk", flat=True)))
            request._machine_versions = versions  # type: ignore[attr-defined]  # both filters ask, once a page
        place = ("name", "version").index(field_path)
        self.lookup_choices: Any = sorted({one[place] for one in versions})[:MOST]

"""Whether the tables are those that this code expects.

Until the first release each app has one migration that is rewritten in place. A database of yesterday then counts as
migrated, and only the first question about a new column would say otherwise, with a trace.
"""

from __future__ import annotations

from django.apps import apps
from django.db import connection

HINT = (
    "Before the first release databases are not carried over. Check out the version that made it, or begin with a new "
    "one: another RATCHET_VAR, or another database in DATABASE_URL."
)
_COLUMNS = """
SELECT c.relname, a.attname, a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.oid = ANY(SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name)
    AND a.attnum > 0 AND NOT a.attisdropped
"""


def schema_problem() -> str | None:
    """One sentence with the first column that is missing or that nobody would fill, or None. One statement.

    Raises:
        DatabaseError: the database does not answer.
    """
    models = [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    wanted = {
        model._meta.db_table: {str(field.column) for field in model._meta.local_concrete_fields}
        for model in models
        if not model._meta.proxy
    }
    found: dict[str, dict[str, bool]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS, [list(wanted)])
        for table, column, must_be_filled in cursor.fetchall():
            found.setdefault(table, {})[column] = must_be_filled
    for table, columns in sorted(wanted.items()):
        if table not in found:
            return f"The database was made by another version: it has no table {table}."
        if missing := sorted(columns - found[table].keys()):
            return f"The database was made by another version: {table} has no column {missing[0]}."
        if left := sorted(name for name, must in found[table].items() if must and name not in columns):
            return f"The database was made by another version: {table} has a column {left[0]} that nothing fills."
    return None

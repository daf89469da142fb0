"""Runs a command so that what a user can put right ends with one sentence and exit code 1, not with a trace.

``--traceback`` shows the trace all the same.
"""

from __future__ import annotations

import errno
import sys

from django.core.exceptions import ImproperlyConfigured

DATABASE_HINT = "Start it with `python manage.py up` or `python manage.py dbserver`, or check DATABASE_URL."
NO_SUCH_EXTENSION = "0A000"
SENTENCES = {
    "53100": "The database's disk is full. Free some space there and try again.",
    "42P01": "The database has not been set up or updated. Run `python manage.py migrate`.",
    "42703": "A column is missing ({reason}). `python manage.py doctor` says whether another version made it.",
}
"""By PostgreSQL's code: disk full, no such table, no such column."""

NOT_OURS = frozenset({
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP,
})  # fmt: skip
"""What is wrong with a file or folder, and not with us. A file that is missing may well be our mistake."""


def run(argv: list[str]) -> None:
    """As Django's `execute_from_command_line`."""
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(argv)
    except Exception as error:
        sentence = None if "--traceback" in argv else explain(error)
        if sentence is None:
            raise
        sys.stderr.write(f"{sentence}\n")
        sys.exit(1)


def explain(error: BaseException) -> str | None:
    """What happened and what to do, for errors that a user can put right; None for errors in the code."""
    from django.db import DatabaseError, OperationalError

    if isinstance(error, ImproperlyConfigured):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{f' ({error.filename})' if error.filename else ''}. Free some space and try again."
    if isinstance(error, OSError) and error.errno in NOT_OURS and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}. Check the path and who may read and write there."
    if not isinstance(error, DatabaseError):
        return None
    state = getattr(error.__cause__, "sqlstate", None)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    if state in SENTENCES:
        return SENTENCES[state].format(reason=reason)
    if state == NO_SUCH_EXTENSION and "vector" in reason:
        return "The PostgreSQL server has no pgvector. Install it there, or leave DATABASE_URL empty."
    if isinstance(error, OperationalError) and state is None:  # no state: there never was a connection
        return f"The database does not answer ({reason}). {DATABASE_HINT}"
    return None

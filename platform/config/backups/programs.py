"""`pg_dump` and `pg_restore`: those of the embedded server, or of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.postgres import PostgresError, binaries

_OPTIONS = {
    "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY",
}  # fmt: skip


class BackupError(Exception):
    """It cannot be done. The message is one sentence with what to do."""


def program(name: str) -> str:
    """Path of a program of PostgreSQL's clients. The embedded server's come first: they are of its version.

    Raises:
        BackupError: there is none.
    """
    try:
        own = binaries() / name
    except PostgresError:
        own = None
    if own is not None and own.exists():
        return str(own)
    if found := shutil.which(name):
        return found
    raise BackupError(f"{name} is not installed. Install the PostgreSQL client (Debian: postgresql-client).")


def run(name: str, arguments: Sequence[str], database: Mapping[str, Any]) -> None:
    """Runs a client program against ``database`` (an entry of Django's DATABASES). The password goes through the
    environment, where other users do not see it.

    Raises:
        BackupError: it failed; with its last line.
    """
    names = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    # What stands behind the question mark of DATABASE_URL: the folder of a socket can stand nowhere else.
    options = database.get("OPTIONS", {})
    given = {variable: str(options[name]) for name, variable in _OPTIONS.items() if options.get(name)}
    given |= {variable: str(database[key]) for variable, key in names.items() if database.get(key)}
    env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(
        [program(name), "--no-password", *arguments],
        env={**env, **given},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise BackupError(f"{name} failed: {lines[-1].strip() if lines else 'no message'}")


def dump(database: Mapping[str, Any], target: Path) -> None:
    """The whole database as of one moment, compressed; others go on reading and writing meanwhile."""
    run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", "--file", str(target)], database)


def load(source: Path, database: Mapping[str, Any]) -> None:
    """Fills an empty ``database``. Comments are left out: that of the extension belongs to a superuser."""
    arguments = ["--no-owner", "--no-privileges", "--no-comments", "--exit-on-error", "--single-transaction"]
    run("pg_restore", [*arguments, "--dbname", str(database["NAME"]), str(source)], database)

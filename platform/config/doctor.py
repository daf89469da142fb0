"""Looks at a running installation, group by group, and says what is wrong in sentences with what to do.

Reads only. Each look stands alone: one that fails is a finding, and the others go on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from packaging.requirements import Requirement

from config.doctor_rooms import LOOKS, Found, Level, Look, is_up
from config.health import database_problem
from config.preflight import MINIMUM_FREE, first_line
from config.schema import schema_problem

MINIMUM_MEMORY = 2 * 2**30
"""Bytes that the engine, a worker and PostgreSQL need together with the bundled base model."""
MOST_CONNECTIONS = 0.8
"""Share of the server's connections from which the next process may find none."""
LONG_TRANSACTION = timedelta(minutes=30)
"""VACUUM cleans nothing that is younger than the oldest open transaction."""
CLOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """``about``: the group; ``hint``: what to do, empty where nothing is wrong."""

    level: Level
    about: str
    text: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Finding]:
    """Every finding, group by group. Where the database does not answer, what needs it is left out."""
    found = [*_look("Installation", _packages), *_look("Machine", _machine)]
    reached = _reached()
    databases = ["default"] if reached is None else []
    found += _look("Settings", lambda: _system_checks(databases))
    if reached is not None:
        hint = "Start it with `python manage.py up`, or check DATABASE_URL."
        return [*found, Finding("error", "Database", f"It does not answer: {reached}", hint)]
    found += _look("Database", _database)
    if database_problem() is None and schema_problem() is None:
        for name, look in LOOKS.items():
            found += _look(name, look)
    return found


def _look(about: str, look: Look) -> list[Finding]:
    found = []
    try:
        for level, text, hint in look():
            found.append(Finding(level, about, text, hint))
    except Exception as error:
        # A look that breaks is itself worth knowing; what it read may be secret, so only the kind is told.
        found.append(Finding("error", about, f"This could not be looked at ({type(error).__name__}).", "See the log."))
    return found


def _reached() -> str | None:
    try:
        connection.ensure_connection()
    except DatabaseError as error:
        return first_line(error)
    return None


def _packages() -> Iterator[Found]:
    """What the project asks for, as installed."""
    wrong = []
    for text in requires("ratchet") or []:
        asked = Requirement(text)
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(asked.name)
        except PackageNotFoundError:
            wrong.append(f"{asked.name} is missing")
            continue
        if not asked.specifier.contains(have, prereleases=True):
            wrong.append(f"{asked.name} is {have}, {asked.specifier} is asked for")
    if wrong:
        yield "error", "; ".join(wrong[:5]) + ".", "Run `make install`."
    else:
        yield "ok", f"ratchet {version('ratchet')}, Django {version('django')}, all packages as asked for.", ""


def _machine() -> Iterator[Found]:
    for name, folder in (("state folder", settings.VAR_DIR), ("temporary folder", Path("/tmp"))):  # noqa: S108
        left = shutil.disk_usage(folder).free
        if left < MINIMUM_FREE:
            yield "error", f"The {name} has {left / 2**20:,.0f} MB left.", "Free some space."
        else:
            yield "ok", f"The {name} has {left / 2**30:,.1f} GB left.", ""
    memory = psutil.virtual_memory()
    text = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GB of memory are free."
    if memory.available < MINIMUM_MEMORY and not is_up():
        yield "warning", text, "The bundled base model, a worker and the database need about 2 GB together."
    else:
        yield "ok", text, ""


def _system_checks(databases: list[str]) -> Iterator[Found]:
    found = checks.run_checks(databases=databases)
    for message in found:
        level: Level = "error" if message.level >= checks.ERROR else "warning"
        name = f" ({message.id})" if message.id else ""
        yield level, f"{message.msg}{name}", message.hint or ""
    if not found:
        yield "ok", "Every system check passes.", ""


def _database() -> Iterator[Found]:
    before = time.time()
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT current_setting('server_version'),
                      (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
                      pg_database_size(current_database()), extract(epoch FROM clock_timestamp()),
                      (SELECT count(*) FROM pg_stat_activity), current_setting('max_connections')::int,
                      (SELECT extract(epoch FROM now() - min(xact_start)) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid())"""
        )
        server, vector, size, clock, used, most, oldest = cursor.fetchone()
    after = time.time()
    having = f"pgvector {vector}" if vector else "no pgvector yet"
    yield "ok", f"PostgreSQL {server} with {having}; the database takes {size / 2**20:,.0f} MB.", ""
    if problem := database_problem():
        yield "error", problem, "Run `python manage.py migrate`, or start with `python manage.py up`."
    if unknown := _unknown_migrations():
        yield (
            "error",
            f"It was migrated by a later version: this one does not know {unknown[0]}.",
            "Run the version that was here last, or restore the backup from before its upgrade.",
        )
    ahead = max(before - float(clock), float(clock) - after, 0.0)
    if ahead > CLOCK_SECONDS:
        yield "warning", f"Its clock differs from ours by {ahead:.0f} s.", "Leases compare times: let both run NTP."
    if used > most * MOST_CONNECTIONS:
        yield "warning", f"{used} of {most} connections are taken.", "Raise max_connections, or put a pooler before it."
    if oldest is not None and oldest > LONG_TRANSACTION.total_seconds():
        yield (
            "warning",
            f"A transaction has been open for {oldest / 60:.0f} minutes.",
            "Find it in pg_stat_activity: until it ends, nothing that was deleted since can be cleaned up.",
        )


def _unknown_migrations() -> list[str]:
    """Names of migrations that are applied and not in this code, of apps that are."""
    loader = MigrationLoader(connection)
    ours = {app for app, _ in loader.disk_migrations}
    found = sorted(
        (loader.applied_migrations or {}).keys() - loader.disk_migrations.keys() - loader.replacements.keys()
    )
    return [f"{app}.{name}" for app, name in found if app in ours]


def worst(found: list[Finding]) -> Level:
    order: dict[Any, int] = {"ok": 0, "note": 1, "warning": 2, "error": 3}
    return max((finding.level for finding in found), key=order.__getitem__, default="ok")

"""Looks at a running installation, group by group, and says what is wrong in sentences with what to do.

Reads only. Each look stands alone: one that fails is a finding, and the others go on.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import psutil
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone
from packaging.requirements import Requirement

from config.health import database_problem
from config.preflight import MINIMUM_FREE, first_line
from config.schema import schema_problem

Level = Literal["ok", "note", "warning", "error"]
MINIMUM_MEMORY = 2 * 2**30
"""Bytes that the engine, a worker and PostgreSQL need together with the bundled base model."""
MOST_CONNECTIONS = 0.8
"""Share of the server's connections from which the next process may find none."""
LONG_TRANSACTION = timedelta(minutes=30)
"""VACUUM cleans nothing that is younger than the oldest open transaction."""
CLOCK_SECONDS = 5.0
_BROKEN_DAYS = 7


@dataclass(frozen=True)
class Finding:
    """``about``: the group; ``hint``: what to do, empty where nothing is wrong."""

    level: Level
    about: str
    text: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


Found = tuple[Level, str, str]
"""Level, text, hint."""
Look = Callable[[], Iterator[Found]]


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
        looks = {"Processes": _processes, "Capture": _capture, "Work": _work, "Search": _search, "Live": _live}
        for name, look in looks.items():
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
    if memory.available < MINIMUM_MEMORY and not _up():
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
    yield "ok", f"PostgreSQL {server} with pgvector {vector}; the database takes {size / 2**20:,.0f} MB.", ""
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


def _processes() -> Iterator[Found]:
    from django_q.models import OrmQ, Schedule

    from capture.management.commands.worker import queue_stands_still, schedule_is_late

    waiting = OrmQ.objects.count()
    if not Schedule.objects.exists():
        yield "note", "No worker has ever run on this database.", "Start everything with `python manage.py up`."
    elif schedule_is_late() or queue_stands_still():
        yield "error", f"The worker stands still ({waiting} jobs wait).", "Start it: `python manage.py up` or `worker`."
    else:
        yield "ok", f"The worker keeps its schedule; {waiting} jobs wait.", ""
    yield from _engine()


def _engine() -> Iterator[Found]:
    from generation.engines import EngineError
    from serving.api import client
    from training.finetune.bases import digest_of_base

    try:
        health = client().health()
    except EngineError as error:
        yield ("error" if _up() else "note"), f"No engine answers: {error}", "Start it with `python manage.py up`."
        return
    if not health.ready:
        yield "warning", "The engine answers, and is not ready yet.", "It loads the base model: look again in a minute."
        return
    loaded = f"{len(health.adapters)} adapters" if len(health.adapters) != 1 else "1 adapter"
    yield "ok", f"The engine holds {health.base} on {health.device} ({health.dtype}) with {loaded}.", ""
    if health.base_digest and not settings.RATCHET_OPENAI_BASE_URL and health.base_digest != digest_of_base():
        yield "error", "The engine holds another base model than RATCHET_BASE_MODEL names.", "Restart the engine."


def _capture() -> Iterator[Found]:
    from assistants.models import Assistant
    from capture.intake_numbers import intake_of
    from capture.rotation import unopenable
    from serving.management.commands.rotate_keys import SEALED

    intakes = intake_of(Assistant.objects.only("pk", "slug", "name"))
    for intake in intakes:
        if intake.held:
            text = f"{intake.assistant.slug}: {intake.held} captured items are held."
            yield "warning", text, "Look at the page Quarantine: it says why, and lets you try again."
        late = intake.oldest is not None and timezone.now() - intake.oldest > timedelta(minutes=10)
        if late and intake.waiting:
            text = f"{intake.assistant.slug}: {intake.waiting} items wait to be scrubbed, the oldest for long."
            yield "warning", text, "Is a worker running? If it is, add others (RATCHET_WORKERS)."
        if intake.fullness > MOST_CONNECTIONS:
            text = f"{intake.assistant.slug}: its quarantine is {intake.percent} % full; when it is, posts get 503."
            yield "error", text, "Start a worker, or settle what is held."
    if foreign := unopenable(SEALED):
        yield (
            "error",
            f"{foreign} encrypted payloads were closed with a key that is not in RATCHET_DATA_KEY.",
            "Put that key behind the one of now, with a comma between, and restart: nothing of them is lost yet.",
        )
    spooled = [path for path in (settings.VAR_DIR / "spool").glob("*") if path.is_file()]
    refused = sum(path.suffix == ".refused" for path in spooled)
    if refused:
        yield "warning", f"{refused} turns of our own chat were set aside.", "The log of the worker says why."
    if len(spooled) > refused:
        yield (
            "note",
            f"{len(spooled) - refused} turns of our own chat wait in the spool.",
            "Each minute some are stored.",
        )
    yield "ok", f"{len(intakes)} assistants, {sum(i.waiting for i in intakes)} items wait to be scrubbed.", ""


def _work() -> Iterator[Found]:
    from assistants.background import STALE_AFTER, BackgroundWork, work_models

    since = timezone.now() - timedelta(days=_BROKEN_DAYS)
    running = 0
    for model in work_models():
        name = str(model._meta.verbose_name_plural)
        active = model._default_manager.filter(state__in=[BackgroundWork.State.QUEUED, BackgroundWork.State.RUNNING])
        running += active.count()
        stale = active.filter(heartbeat_at__lt=timezone.now() - STALE_AFTER).count()
        if stale:
            yield (
                "error",
                f"{stale} {name} show no life.",
                "A worker finds and resumes them each minute: is one running?",
            )
        failed = model._default_manager.filter(state=BackgroundWork.State.FAILED, finished_at__gte=since)
        if count := failed.count():
            yield "note", f"{count} {name} failed within {_BROKEN_DAYS} days.", "Their rows in the admin say why."
    yield "ok", f"{running} pieces of long work wait or run.", ""


def _search() -> Iterator[Found]:
    from knowledge.indexing import without_index

    missing = without_index()
    for slug, chunks in missing:
        yield (
            "note",
            f"{slug} has {chunks:,} chunks and no whole vector index: it is searched exactly, which takes longer.",
            "The worker makes one within ten minutes; the page Vector indexes says why it did not.",
        )
    if not missing:
        yield "ok", "Every large assistant has its vector index.", ""


def _live() -> Iterator[Found]:
    from generation.adapters import check_adapter
    from generation.engines import AdapterRefused
    from serving.models import Deployment
    from training.finetune.bases import from_state

    deployments = list(Deployment.objects.select_related("assistant", "adapter", "previous"))
    for found in deployments:
        for role, adapter in (("live", found.adapter), ("previous", found.previous)):
            if adapter is None:
                continue
            try:
                check_adapter(from_state(adapter.folder), base_digest=adapter.base_digest)
            except (AdapterRefused, OSError) as error:
                level: Level = "error" if role == "live" else "warning"
                yield level, f"{found.assistant}: its {role} adapter {adapter} is damaged: {error}", "Restore a backup."
    yield "ok", f"{sum(d.adapter_id is not None for d in deployments)} adapters are live; their files are whole.", ""


def _up() -> bool:
    """Whether a supervisor holds the state folder: what it starts is expected to answer then."""
    try:
        with (settings.VAR_DIR / "up.lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def worst(found: list[Finding]) -> Level:
    order: dict[Any, int] = {"ok": 0, "note": 1, "warning": 2, "error": 3}
    return max((finding.level for finding in found), key=order.__getitem__, default="ok")

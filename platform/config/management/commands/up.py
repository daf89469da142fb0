"""`manage.py up`: the whole platform from one command."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection, connections

from assistants.key_check import HINT as KEY_HINT
from assistants.key_check import PROBLEM as KEY_PROBLEM
from assistants.key_check import accept_hash_key as accept_key
from assistants.key_check import remember_hash_key
from config import preflight, processes
from config.dbserver import stop_stray
from config.env import envsecret
from config.postgres import place
from config.processes import Program
from config.schema import HINT, schema_problem
from config.supervisor import AlreadyRunning, Lock, Logs, Supervisor

PARTS = ("db", "web", "worker", "train", "engine")
DEFAULT_PORT = 8000
PORTS_TRIED = 50
MIGRATION_LOCK = 0x52617463
"""Advisory lock: several machines may start at once, one migrates."""


class Command(BaseCommand):
    help = "Runs the platform: database, web, workers and engine. Ctrl-C stops all of it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--only", default="", help=f"Some of {','.join(PARTS)}, with commas; default: all.")
        parser.add_argument("--host", default=settings.RATCHET_HOST, help="Address to listen on (%(default)s).")
        parser.add_argument(
            "--port",
            type=int,
            default=settings.RATCHET_PORT or None,
            help=f"Default: {DEFAULT_PORT}, or the next free one.",
        )
        parser.add_argument("--quiet", action="store_true", help="Children's logs go to var/log only.")
        parser.add_argument(
            "--attached",
            action="store_true",
            help="Also stop when standard input closes: when whoever started it ends.",
        )

        parser.add_argument(
            "--accept-hash-key", action="store_true", help="RATCHET_HASH_KEY of now counts, since the old one is lost."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        parts = _parts(options["only"])
        var: Path = settings.VAR_DIR
        preflight.check(engine="engine" in parts)
        lock = Lock(var)
        try:
            lock.acquire()
        except AlreadyRunning as error:
            raise CommandError(str(error)) from error
        os.umask(0o077)  # logs, adapters, runs: ours alone
        try:
            port = _port(options["host"], options["port"]) if "web" in parts else 0
            self._run(lock, parts, options, port)
        finally:
            lock.release()

    def _run(self, lock: Lock, parts: list[str], options: dict[str, Any], port: int) -> None:
        var: Path = settings.VAR_DIR
        if processes.sweep(var, grace=3.0) or ("db" in parts and stop_stray(var)):
            self.stderr.write("Stopped what an earlier run had left behind.")
        logs = Logs(settings.LOG_DIR, None if options["quiet"] else sys.stdout)
        supervisor = Supervisor(var, logs)
        _stop_on_signals(supervisor, attached=options["attached"])
        try:
            login = self._start(supervisor, parts, options, port)
            if not supervisor.stopping.is_set():
                url = f"http://{'127.0.0.1' if options['host'] == '0.0.0.0' else options['host']}:{port}"  # noqa: S104
                lock.write({"pid": os.getpid(), "url": url if port else "", "parts": parts})
                self._announce(url if port else "", login, supervisor)
            supervisor.watch()
        finally:
            self.stdout.write("Stopping …")
            connections.close_all()
            supervisor.stop()
            logs.close()
            self.stdout.write("Stopped.")

    def _start(self, supervisor: Supervisor, parts: list[str], options: dict[str, Any], port: int) -> str:
        """Database, migrations, admin, then the rest. Returns the new admin's password, or nothing."""
        if "db" in parts:
            supervisor.start(processes.database(settings.VAR_DIR))
            if supervisor.wait_ready(["db"], seconds=60) and not supervisor.stopping.is_set():
                raise CommandError("The embedded PostgreSQL did not start; the lines above and var/log/db.log say why.")
            # It may have chosen its place just now, after our settings were read; our children read them afresh.
            connection.settings_dict["HOST"] = str(place(settings.VAR_DIR).run)
        if supervisor.stopping.is_set():
            return ""
        preflight.require_database(seconds=30)
        _migrate(accept_hash_key=options["accept_hash_key"])
        password = _ensure_admin()
        _ensure_schedules()
        connections.close_all()
        started = [program for program in _programs(options["host"], port) if program.name in parts]
        for program in started:
            supervisor.start(program)
        slow = supervisor.wait_ready([program.name for program in started], seconds=settings.RATCHET_START_SECONDS)
        if slow and not supervisor.stopping.is_set():
            supervisor.say(f"not ready yet: {', '.join(slow)}; see var/log. Still trying.")
        return password

    def _announce(self, url: str, password: str, supervisor: Supervisor) -> None:
        lines = [f"Ratchet is running{f' at {url}/' if url else ''}. Ctrl-C stops it."]
        if password:
            kept = settings.SECRETS_DIR / "admin_password"
            lines.append(f"Admin login: admin / {password}   (shown once; kept in {kept} until you delete it)")
        for line in lines:
            self.stdout.write(self.style.SUCCESS(line))
        self.stdout.flush()  # whoever started us may read this through a pipe, which is buffered
        supervisor.say("ready")


def _parts(only: str) -> list[str]:
    chosen = [part.strip() for part in only.split(",") if part.strip()] or list(PARTS)
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise CommandError(f"There is no part named {', '.join(unknown)}. Choose from {', '.join(PARTS)}.")
    if not settings.EMBEDDED_DATABASE:
        if only and "db" in chosen:
            raise CommandError("DATABASE_URL names a server of its own; there is no embedded one to run. Leave out db.")
        chosen = [part for part in chosen if part != "db"]
    if not settings.RATCHET_ENGINE_IS_OURS:
        if only and "engine" in chosen:
            raise CommandError("RATCHET_ENGINE_URL names a server elsewhere; there is no engine to run here.")
        chosen = [part for part in chosen if part != "engine"]
    return chosen


def _programs(host: str, port: int) -> list[Program]:
    engine_env = {
        "RATCHET_BASE_MODEL": settings.RATCHET_BASE_MODEL,
        "RATCHET_ENGINE_URL": settings.RATCHET_ENGINE_URL,
        "RATCHET_ENGINE_KEY": settings.RATCHET_ENGINE_KEY,
        "RATCHET_EMBEDDER": settings.RATCHET_EMBEDDER,
        "RATCHET_RERANKER": settings.RATCHET_RERANKER,
        "RATCHET_ADAPTERS": str(settings.RATCHET_ADAPTERS_DIR),
    }
    return [
        processes.engine(settings.RATCHET_ENGINE_URL, engine_env),  # first: its libraries take longest to load
        processes.web(host, port),
        processes.worker(),
        processes.launcher(),
    ]


def _port(host: str, wanted: int | None) -> int:
    """The wanted port, or the first free one from 8000 on."""
    candidates = [wanted] if wanted else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED)
    for port in candidates:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OverflowError:
                raise CommandError(f"{port} is no port. Choose one from 1 to 65535.") from None
            except OSError as error:
                problem = error.strerror
                continue
            return port
    if wanted:
        raise CommandError(f"Cannot listen on {host}:{wanted}: {problem}. Choose another with --port.")
    raise CommandError(f"No free port from {DEFAULT_PORT} on: {problem}. Choose one with --port.")


def _migrate(*, accept_hash_key: bool = False) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
            try:
                call_command("migrate", verbosity=0, interactive=False)
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
    except DatabaseError as error:
        raise CommandError(f"The database cannot be migrated: {str(error).strip()}") from error
    if problem := schema_problem():
        raise CommandError(f"{problem} {HINT}")
    if accept_hash_key:
        accept_key()
    if not remember_hash_key():
        raise CommandError(f"{KEY_PROBLEM} {KEY_HINT}")


def _ensure_admin() -> str:
    """Makes the first admin. Returns the password when it was made now."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return ""
    password = envsecret("ADMIN_PASSWORD", folder=settings.SECRETS_DIR, make=lambda: secrets.token_urlsafe(12))
    users.create_superuser("admin", password=password)
    return password


def _ensure_schedules() -> None:
    """What runs by itself, also on a fresh platform: scrubbing what waits, repairing work, storing spooled turns (each
    minute), experiments (each minute), drift (each week), forgetting who looked at what, and files that
    nobody decided about (each day)."""
    from assistants.background import ensure_sweep
    from assistants.jobs import ensure_forgetting
    from capture.jobs import ensure_schedule
    from knowledge.jobs import ensure_counting, ensure_indexing
    from knowledge.upload_jobs import ensure_forgetting as ensure_forgetting_files
    from serving.jobs import ensure_drain, ensure_schedules

    ensure_schedule()
    ensure_sweep()
    ensure_counting()
    ensure_indexing()
    ensure_drain()
    ensure_schedules()
    ensure_forgetting()
    ensure_forgetting_files()


def _stop_on_signals(supervisor: Supervisor, *, attached: bool) -> None:
    def ask(_number: int, _frame: object) -> None:
        if supervisor.stopping.is_set():
            supervisor.grace = 0.0  # asked twice: no more patience
        supervisor.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    if attached:
        threading.Thread(target=_wait_for_end_of_input, args=(supervisor,), daemon=True).start()


def _wait_for_end_of_input(supervisor: Supervisor) -> None:
    while os.read(0, 4096):
        pass
    supervisor.stopping.set()

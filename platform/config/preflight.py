"""What a command needs before it begins. Each problem is one sentence with a hint and an exit code other than 0."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.db import OperationalError, connection

from config.checks import base_model_problem

MINIMUM_FREE = 300 * 2**20


def check(*, engine: bool) -> None:
    """The state folder takes what we write, and the base model is there when an engine shall run.

    Raises:
        CommandError: something is missing.
    """
    require_disk(settings.VAR_DIR)
    if engine and (problem := base_model_problem()):
        raise CommandError(" ".join(problem))


def require_disk(folder: Path, *, free: int = MINIMUM_FREE) -> None:
    try:
        probe = folder / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise CommandError(f"Cannot write in {folder}: {error.strerror}. Free space, or set RATCHET_VAR.") from error
    left = shutil.disk_usage(folder).free
    if left < free:
        raise CommandError(
            f"The disk is full: {left / 2**20:.0f} MB left in {folder}, {free / 2**20:.0f} MB are needed. "
            "Free some space."
        )


def first_line(error: Exception) -> str:
    """The rest of what the database says is advice for people who run a server."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")


def require_database(*, seconds: float = 0) -> None:
    """Waits up to ``seconds`` for the database to answer.

    Raises:
        CommandError: it does not.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.ensure_connection()
        except OperationalError as error:
            # A wrong password does not become right by waiting.
            if time.monotonic() < deadline and "authentication failed" not in str(error):
                time.sleep(0.3)
                continue
            hint = (
                "Start it with `python manage.py up` or `python manage.py dbserver`."
                if settings.EMBEDDED_DATABASE
                else "Check that the server runs, and DATABASE_URL: in its password @ is written %40, / %2F, # %23."
            )
            reason = first_line(error)
            raise CommandError(f"The database does not answer ({reason}). {hint}") from error
        return

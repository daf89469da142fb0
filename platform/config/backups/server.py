"""A command that needs the database, whether the platform runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import DEVNULL

from django.conf import settings
from django.db import connection, connections

from config import dbserver, postgres, preflight
from config.env import envsecret


@contextmanager
def running_database() -> Iterator[None]:
    """Starts the embedded server for the block when nobody runs it.

    Raises:
        CommandError: the database does not answer.
        PostgresError: the embedded server cannot be started.
    """
    var = settings.VAR_DIR
    if not settings.EMBEDDED_DATABASE or dbserver.running_pid(postgres.place(var)) is not None:
        preflight.require_database(seconds=10)
        yield
        return
    password = envsecret(postgres.PASSWORD_NAME, folder=settings.SECRETS_DIR)
    child, spot = dbserver.start(var, password, output=DEVNULL)
    try:
        dbserver.wait_ready(spot, password, child)
        connection.settings_dict["HOST"] = str(spot.run)  # it may have chosen its place just now
        yield
    finally:
        connections.close_all()
        dbserver.stop(child)

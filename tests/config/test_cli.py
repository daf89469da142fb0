from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, ProgrammingError

from config.cli import explain

ROOT = Path(__file__).resolve().parent.parent.parent


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (ImproperlyConfigured("X_PORT='a' is not a whole number."), "X_PORT='a' is not"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/run.log"), "The disk is full (/data/run.log)."),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "/root/x cannot be used: Permission denied."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/data"), "/data cannot be used: Is a directory."),
        (caused(OperationalError("could not extend file"), psycopg.errors.DiskFull()), "The database's disk is full."),
        (caused(ProgrammingError("no relation"), psycopg.errors.UndefinedTable()), "The database has not been set up"),
        (caused(ProgrammingError("no column"), psycopg.errors.UndefinedColumn()), "A column is missing (no column)."),
        (
            caused(OperationalError("connection failed\n\tIs the server running?"), psycopg.OperationalError()),
            "The database does not answer (connection failed). Start it with",
        ),
    ],
)
def test_what_a_user_can_put_right_is_one_sentence(error: Exception, start: str) -> None:
    assert (explain(error) or "").startswith(start)


@pytest.mark.parametrize(
    "error", [KeyError("x"), FileNotFoundError("x"), PermissionError("x"), ProgrammingError("syntax error")]
)
def test_errors_in_the_code_keep_their_trace(error: Exception) -> None:
    assert explain(error) is None


def manage(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    # Tests of the web process, in this one, leave word of it in the environment.
    inherited = {name: value for name, value in os.environ.items() if name != "RATCHET_PROCESS"}
    return subprocess.run(command, env={**inherited, **env}, capture_output=True, text=True, check=False, cwd="/")


def test_a_command_without_its_database_says_so_in_one_line(tmp_path: Path) -> None:
    done = manage("migrate", "--skip-checks", DATABASE_URL=f"postgres://nobody@/none?host={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith("The database does not answer (")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_setting_that_cannot_be_read_says_so_in_one_line() -> None:
    done = manage("check", RATCHET_PORT="eight thousand")
    assert done.returncode == 1
    assert done.stderr == "RATCHET_PORT='eight thousand' is not a whole number.\n"

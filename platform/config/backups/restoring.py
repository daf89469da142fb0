"""Puts a backup back. What was there before is kept beside, under another name, until somebody removes it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection, connections
from django.utils import timezone
from psycopg import sql

from config.backups import archive, programs
from config.backups.archive import DATABASE, Manifest
from config.backups.making import FOLDERS, SECRETS, SPOOL, schema_digest
from config.backups.programs import BackupError

SECONDS = 20.0
"""Until sessions that were closed are gone."""
OTHERS = "Others are connected to the database. Stop every process of the platform first."


def restore(source: Path, *, replace: bool, other_schema: bool = False) -> tuple[Manifest, list[str]]:
    """Database and files of ``source``. Nothing that is there is touched before the whole backup has been checked and
    the database filled under another name.

    Returns the manifest, and the names under which what was there before is kept.

    Raises:
        BackupError: damaged, of another schema, or there is something here and ``replace`` was not given.
    """
    manifest = archive.read_manifest(source)
    if manifest.schema != schema_digest() and not other_schema:
        raise BackupError(
            f"It was made by version {manifest.version} with another database schema. Check out that version, restore, "
            "and then upgrade."
        )
    database = connection.settings_dict
    filled = _has_data()
    if filled and not replace:
        raise BackupError("This database holds an assistant already. With --replace it is kept under another name.")
    staged = settings.VAR_DIR / "restore.new"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        connections.close_all()
        with _maintenance(database) as server:
            _wait_until_alone(server, str(database["NAME"]))  # before the long part
        archive.unpack(source, manifest, staged)
        stamp = timezone.now().strftime("%Y%m%d%H%M%S")
        kept = [fill(staged / DATABASE, database, stamp)]
        if not filled:
            with _maintenance(database) as server:
                server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(kept.pop())))
        kept += _place_files(staged, stamp)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return manifest, kept


def _has_data() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('assistants_assistant') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return False
        cursor.execute("SELECT EXISTS (SELECT FROM assistants_assistant)")
        return bool(cursor.fetchone()[0])


def fill(dumped: Path, database: Mapping[str, Any], stamp: str) -> str:
    """Fills a new database, and lets it change names with the one that was there; returns the old one's new name.

    Raises:
        BackupError: the role may not create databases, or others are connected.
    """
    name = str(database["NAME"])
    fresh, old = f"{name}_restore_{stamp}", f"{name}_before_{stamp}"
    with _maintenance(database) as server:
        try:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(fresh)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise BackupError(
                f"The role {database['USER']} may not create databases. Give it CREATEDB for the restore."
            ) from error
        try:
            programs.load(dumped, {**database, "NAME": fresh})
        except BackupError:
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(fresh)))
            raise
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        try:
            _wait_until_alone(server, name)
            server.execute(rename.format(sql.Identifier(name), sql.Identifier(old)))
        except (BackupError, psycopg.errors.ObjectInUse):
            server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(fresh)))
            raise BackupError(OTHERS) from None
        try:
            server.execute(rename.format(sql.Identifier(fresh), sql.Identifier(name)))
        except psycopg.Error:
            server.execute(rename.format(sql.Identifier(old), sql.Identifier(name)))
            raise
    return old


def _wait_until_alone(server: psycopg.Connection, name: str) -> None:
    """PostgreSQL counts a session until its process has ended, which on a busy machine takes seconds after our own was
    closed: a restore on a new machine was refused for that.

    Raises:
        BackupError: others are connected, and stay.
    """
    deadline = time.monotonic() + SECONDS
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    while (row := server.execute(sessions, [name]).fetchone()) and row[0]:
        if time.monotonic() > deadline:
            raise BackupError(OTHERS)
        time.sleep(0.2)


def _maintenance(database: Mapping[str, Any]) -> psycopg.Connection:
    """At another database of the server: one cannot be renamed from within."""
    options = {key: value for key, value in database.get("OPTIONS", {}).items() if key in ("sslmode", "sslrootcert")}
    return psycopg.connect(
        host=database["HOST"] or None,
        port=database["PORT"] or None,
        user=database["USER"] or None,
        password=database["PASSWORD"] or None,
        dbname="postgres",
        autocommit=True,
        **options,
    )


def _place_files(staged: Path, stamp: str) -> list[str]:
    """Each folder changes places with the one that was there. Secrets only where the backup has them."""
    targets = {name: Path(getattr(settings, setting)) for name, setting in FOLDERS.items()}
    targets |= {SPOOL: settings.VAR_DIR / SPOOL, SECRETS: settings.SECRETS_DIR}
    kept = []
    for name, target in targets.items():
        coming = staged / name
        if name == SECRETS and not coming.exists():
            continue
        if target.exists() and any(target.iterdir()):
            aside = target.with_name(f"{target.name}.before-{stamp}")
            target.rename(aside)
            kept.append(str(aside))
        elif target.exists():
            target.rmdir()
        if coming.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.move(coming, target)
        if name == SECRETS:
            _keep_password(target, Path(kept[-1]) if kept and kept[-1].startswith(str(target)) else None)
    return kept


def _keep_password(secrets: Path, before: Path | None) -> None:
    """The embedded server knows its own password, not that of the machine where the backup was made."""
    from config.postgres import PASSWORD_NAME

    for name in (PASSWORD_NAME, PASSWORD_NAME.lower()):
        if before is not None and (before / name).exists():
            shutil.copy2(before / name, secrets / name)

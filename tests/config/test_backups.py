from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from threading import Timer

import dj_database_url
import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings
from psycopg import sql

from assistants.models import Assistant
from config.backups import archive, making, programs, restoring
from config.backups.archive import Manifest
from config.backups.programs import BackupError
from tests.factories import make_assistant, make_turn
from tests.servers import drop_database

FACTS = Manifest("2026-01-01T00:00:00", "0.1.0", "18", "0", with_secrets=False, counts={})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "adapters" / "helpdesk" / "1").mkdir(parents=True)
    (tmp_path / "adapters" / "helpdesk" / "1" / "manifest.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.mark.django_db(transaction=True)
def test_what_is_backed_up_comes_back_beside_what_was_there(state: Path, tmp_path: Path) -> None:
    assistant = make_assistant("helpdesk")
    make_turn(assistant, question="What does leaving cost?")
    name = str(connection.settings_dict["NAME"])
    target = tmp_path / "one.tar"
    with override_settings(RATCHET_ADAPTERS_DIR=state / "adapters", RATCHET_RUNS_DIR=state / "runs", VAR_DIR=state):
        manifest = making.make(target, with_secrets=False)
    assert target.stat().st_mode & 0o777 == 0o600
    assert manifest.counts["capture.Turn"] == 1
    assert set(manifest.files) == {"database.dump", "adapters/helpdesk/1/manifest.json"}
    assert archive.read_manifest(target) == manifest

    unpacked = tmp_path / "unpacked"
    archive.unpack(target, manifest, unpacked)
    fresh = f"{name}_copy"
    admin = restoring._maintenance(connection.settings_dict)
    admin.execute(f'CREATE DATABASE "{fresh}"')
    try:
        database = {**connection.settings_dict, "NAME": fresh}
        programs.load(unpacked / "database.dump", database)
        with psycopg.connect(
            host=database["HOST"], port=database["PORT"], user=database["USER"], password=database["PASSWORD"],
            dbname=fresh,
        ) as copy:  # fmt: skip
            row = copy.execute("SELECT question FROM capture_turn").fetchone()
        assert row == ("What does leaving cost?",)
        # The same database again, under its name: the copy steps aside.
        old = restoring.fill(unpacked / "database.dump", database, "1")
        names = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
        assert {fresh, f"{fresh}_before_1"} <= names
        assert old == f"{fresh}_before_1"
        admin.execute(f'DROP DATABASE "{old}"')
    finally:
        drop_database(admin, fresh)
        admin.close()


@pytest.mark.django_db
def test_who_is_connected_is_waited_for_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is just ending is none of the platform's: closing takes seconds on a busy machine.

    At a database of its own: a thread that an earlier test left may still be connected to the tests'.
    """
    database = connection.settings_dict
    name = f"{database['NAME']}_alone"
    with restoring._maintenance(database) as server:
        drop_database(server, name)
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        session = psycopg.connect(
            host=database["HOST"], port=database["PORT"], user=database["USER"], password=database["PASSWORD"],
            dbname=name,
        )  # fmt: skip
        try:
            monkeypatch.setattr(restoring, "SECONDS", 0.3)
            with pytest.raises(BackupError, match="Others are connected"):
                restoring._wait_until_alone(server, name)
            monkeypatch.setattr(restoring, "SECONDS", 60.0)
            closing = Timer(0.5, session.close)
            closing.start()
            restoring._wait_until_alone(server, name)
            closing.join()
        finally:
            session.close()
            drop_database(server, name)


@pytest.mark.django_db
def test_a_database_with_something_in_it_is_not_overwritten_unasked(tmp_path: Path) -> None:
    make_assistant("helpdesk")
    target = tmp_path / "one.tar"
    source = tmp_path / "database.dump"
    source.write_bytes(b"x")
    facts = Manifest(**{**FACTS.__dict__, "schema": making.schema_digest()})
    archive.write(target, facts, {"database.dump": source})
    with pytest.raises(BackupError, match="--replace"):
        restoring.restore(target, replace=False)
    assert Assistant.objects.count() == 1


def test_a_backup_of_another_schema_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "one.tar"
    archive.write(target, FACTS, {})
    with pytest.raises(BackupError, match="another database schema"):
        restoring.restore(target, replace=True)


def test_a_damaged_short_or_foreign_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"y" * 5000)
    target = tmp_path / "one.tar"
    manifest = archive.write(target, FACTS, {"adapters/a": source})
    with pytest.raises(BackupError, match="exists"):
        archive.write(target, FACTS, {})
    whole = target.read_bytes()

    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole.replace(b"yyyy", b"yzyy", 1))
    with pytest.raises(BackupError, match="damaged"):
        archive.unpack(damaged, manifest, tmp_path / "a")

    short = tmp_path / "short.tar"
    short.write_bytes(whole[:3000])
    with pytest.raises(BackupError):
        archive.read_manifest(short)

    foreign = tmp_path / "foreign.tar"
    foreign.write_text("hello")
    with pytest.raises(BackupError, match="no backup"):
        archive.read_manifest(foreign)
    with pytest.raises(BackupError, match="cannot be read"):
        archive.read_manifest(tmp_path / "absent.tar")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "adapters/../../evil"])
def test_a_file_that_would_lie_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    target = tmp_path / "evil.tar"
    text = json.dumps({**FACTS.__dict__, "files": {name: "0"}}).encode()
    with tarfile.open(target, "w") as tar:
        for entry_name, content in ((name, b"evil"), (archive.MANIFEST, text)):
            entry = tarfile.TarInfo(entry_name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    with pytest.raises(BackupError, match="elsewhere"):
        archive.unpack(target, archive.read_manifest(target), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_files_change_places_and_nothing_is_lost(state: Path, tmp_path: Path) -> None:
    staged = tmp_path / "restore.new"
    (staged / "adapters" / "helpdesk" / "2").mkdir(parents=True)
    (staged / "adapters" / "helpdesk" / "2" / "manifest.json").write_text("new")
    with override_settings(
        RATCHET_ADAPTERS_DIR=state / "adapters", RATCHET_RUNS_DIR=state / "runs", VAR_DIR=state,
        SECRETS_DIR=state / "secrets",
    ):  # fmt: skip
        kept = restoring._place_files(staged, "7")
    assert kept == [str(state / "adapters.before-7")]
    assert (state / "adapters" / "helpdesk" / "2" / "manifest.json").read_text() == "new"
    assert (state / "adapters.before-7" / "helpdesk" / "1" / "manifest.json").read_text() == "{}"


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    nowhere = {"HOST": str(tmp_path), "PORT": "5432", "USER": "nobody", "PASSWORD": "secret-word", "NAME": "none"}
    with pytest.raises(BackupError, match="pg_dump failed") as failed:
        programs.dump(nowhere, tmp_path / "x")
    assert "secret-word" not in str(failed.value)
    assert settings.SECRETS_DIR


def test_client_programs_reach_a_server_behind_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL=postgresql://user@/name?host=/folder&port=5433: Django has both among its options."""
    told = tmp_path / "told"
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$PGHOST $PGPORT $PGUSER $PGDATABASE $PGSSLMODE" > {told}\n')
    program.chmod(0o700)
    monkeypatch.setattr(programs, "program", lambda name: str(program))
    url = "postgresql://ratchet@/name?host=/run/somewhere&port=5433&sslmode=disable"
    programs.run("pg_dump", [], dict(dj_database_url.parse(url)))
    assert told.read_text().split() == ["/run/somewhere", "5433", "ratchet", "name", "disable"]

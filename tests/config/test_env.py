from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.env import envbool, envchoice, envint, envlist, envpath, envsecret, envstr, load_env_file


@pytest.mark.parametrize(("raw", "value"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("", False)])
def test_booleans_are_read_in_words_and_figures(monkeypatch: pytest.MonkeyPatch, raw: str, value: bool) -> None:
    monkeypatch.setenv("X_FLAG", raw)
    assert envbool("X_FLAG", not value) is value


def test_a_boolean_that_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_FLAG", "perhaps")
    with pytest.raises(ImproperlyConfigured, match="X_FLAG='perhaps' is neither true nor false"):
        envbool("X_FLAG")


def test_integers_have_defaults_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert envint("X_NUMBER", 7) == 7
    monkeypatch.setenv("X_NUMBER", " 12 ")
    assert envint("X_NUMBER", 7, minimum=1, maximum=12) == 12
    with pytest.raises(ImproperlyConfigured, match="outside"):
        envint("X_NUMBER", 7, maximum=11)
    monkeypatch.setenv("X_NUMBER", "twelve")
    with pytest.raises(ImproperlyConfigured, match="not a whole number"):
        envint("X_NUMBER", 7)


def test_a_choice_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert envchoice("X_KIND", "plain", ("plain", "fine")) == "plain"
    monkeypatch.setenv("X_KIND", " fine ")
    assert envchoice("X_KIND", "plain", ("plain", "fine")) == "fine"
    monkeypatch.setenv("X_KIND", "fien")
    with pytest.raises(ImproperlyConfigured, match="X_KIND='fien' is none of plain, fine"):
        envchoice("X_KIND", "plain", ("plain", "fine"))


def test_lists_drop_empty_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_LIST", "a, b,,c ")
    assert envlist("X_LIST") == ["a", "b", "c"]


def test_relative_paths_count_from_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert envpath("X_PATH", tmp_path / "default", base=tmp_path) == tmp_path / "default"
    monkeypatch.setenv("X_PATH", "sub/folder")
    assert envpath("X_PATH", tmp_path, base=tmp_path) == tmp_path / "sub" / "folder"


def test_a_value_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text("from the file\n", encoding="utf-8")
    monkeypatch.setenv("X_VALUE", "from the environment")
    monkeypatch.setenv("X_VALUE_FILE", str(file))
    assert envstr("X_VALUE") == "from the file"
    monkeypatch.setenv("X_VALUE_FILE", str(tmp_path / "absent"))
    with pytest.raises(ImproperlyConfigured, match="X_VALUE_FILE"):
        envstr("X_VALUE")


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = envsecret("X_SECRET", folder=tmp_path / "secrets")
    assert len(first) >= 48
    assert envsecret("X_SECRET", folder=tmp_path / "secrets") == first
    file = tmp_path / "secrets" / "x_secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["x_secret"]


def test_processes_that_start_together_get_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: envsecret("X_SECRET", folder=tmp_path), range(40)))
    assert len(set(made)) == 1


def test_a_secret_that_is_given_is_not_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("X_SECRET", "given")
    assert envsecret("X_SECRET", folder=tmp_path / "secrets") == "given"
    assert not (tmp_path / "secrets").exists()


def test_a_secret_that_cannot_be_kept_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(ImproperlyConfigured, match="set X_SECRET"):
        envsecret("X_SECRET", folder=tmp_path / "secrets")


def test_the_env_file_fills_only_what_is_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("X_SET", "environment")
    monkeypatch.delenv("X_NEW", raising=False)
    monkeypatch.delenv("X_QUOTED", raising=False)
    file = tmp_path / ".env"
    file.write_text("# a comment\n\nX_SET=file\nexport X_NEW=a=b\nX_QUOTED='two words'\n", encoding="utf-8")
    load_env_file(file)
    assert (envstr("X_SET"), envstr("X_NEW"), envstr("X_QUOTED")) == ("environment", "a=b", "two words")
    monkeypatch.delenv("X_NEW")
    monkeypatch.delenv("X_QUOTED")
    load_env_file(tmp_path / "absent")


def test_a_broken_line_of_the_env_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# fine\nno assignment\n", encoding="utf-8")
    with pytest.raises(ImproperlyConfigured, match="line 2"):
        load_env_file(file)

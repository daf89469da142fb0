"""Rules of the house that a machine can hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [path for path in (ROOT / "platform").iterdir() if path.is_dir() and path.name != "__pycache__"]
HEAVY = ("torch", "transformers", "peft", "trl", "sentence_transformers", "presidio_analyzer", "spacy")


def test_platform_is_a_source_root_and_never_a_package() -> None:
    assert list((ROOT / "platform").glob("*.py")) == []
    assert all((package / "__init__.py").exists() for package in PACKAGES)


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_setting_is_documented() -> None:
    settings = (ROOT / "platform/config/settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'env(?:str|bool|int|list|path|secret)\(\s*"([A-Z_]+)"', settings))
    documented = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert read - documented == set()


def test_the_pins_cover_every_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {_normal(re.split(r"[\[<>=!~ ]", line, maxsplit=1)[0]) for line in wanted}
    pinned = {_normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()}
    assert names - pinned - {"ratchet"} == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_the_web_process_loads_no_model_library() -> None:
    code = f"""
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
django.setup()
from django.urls import get_resolver
import config.asgi
get_resolver().url_patterns
[pattern.url_patterns for pattern in get_resolver().url_patterns if hasattr(pattern, "url_patterns")]
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"

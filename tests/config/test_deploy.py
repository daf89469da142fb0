"""What `deploy/` says must be true of the project: settings have names that are read, the image can do what docs say.
Docker itself is not asked."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
OURS = {name: one for name, one in COMPOSE["services"].items() if name != "db"}


def test_every_setting_of_the_containers_is_one_that_is_read() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", text[text.index("## Settings") :])) | {"Q_CLUSTER_NAME"}
    code = "".join(path.read_text() for path in (ROOT / "platform").rglob("*.py"))
    for service in OURS.values():
        for name in service["environment"]:
            assert name in documented or name in code, name


def test_one_password_and_one_address_of_the_database() -> None:
    urls = {service["environment"]["DATABASE_URL"] for service in OURS.values()}
    assert len(urls) == 1
    assert "@db:5432/" + COMPOSE["services"]["db"]["environment"]["POSTGRES_DB"] in urls.pop()


def test_every_container_shares_the_state_folder_and_reads_the_settings_file() -> None:
    for service in OURS.values():
        assert service["volumes"] == ["state:/app/var"]
        assert service["env_file"] == [{"path": "ratchet.env", "required": False}]
    assert set(COMPOSE["volumes"]) == {"state", "database"}
    for ignored in (".gitignore", "deploy/Dockerfile.dockerignore"):  # they may hold passwords
        assert {"deploy/ratchet.env", "deploy/.env"} <= {
            line.lstrip("/") for line in (ROOT / ignored).read_text().split()
        }


def test_the_image_installs_everything_that_pages_offer() -> None:
    """Documents in PDF, imports of Parquet, and backups, which need pg_dump."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (installed,) = re.findall(r"-e '\.\[([\w,-]+)\]'", DOCKERFILE)
    assert installed == "all"
    assert {"documents", "parquet", "embedded-pg"} <= set(re.split(r"[\[\],]", extras["all"][0]))


def test_what_the_image_copies_before_the_code_is_there() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE):
        for path in line.split():
            assert (ROOT / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "readme" not in project  # or it has to be copied with pyproject.toml, before packages are installed

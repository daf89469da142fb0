"""The pages keep up with the code: settings, commands, checks and addresses are named, links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, get_resolver

from config.health import PROBES
from training.data.recipe import Recipe
from training.evaluation.gate import GUARDRAILS
from training.finetune.config import FinetuneConfig
from training.synthesis.filters import EXPLAINED

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "sdk/README.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
OWN_APPS = {"config", "assistants", "knowledge", "capture", "annotations", "training", "serving"}
OWN_ADDRESSES = ("api/v1/", "v1/")
HOSTS = {"127.0.0.1", "localhost", "example.org", "ratchet.example.org", "github.com", "host"}
"""Pages are read offline and with package mirrors: they point at nobody's server but a project's own page."""
_PRAISE = "seamless powerful effortless blazing cutting-edge state-of-the-art revolutionary world-class game-changing"
_UNDONE = "todo fixme tbd lorem"
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SETTING = re.compile(r'env(?:str|bool|int|list|path|secret)\(\s*"([A-Z_]+)"|environ\.get\("([A-Z_]+)"')
_CHECK = re.compile(r'"(ratchet\.[EW]\d{3})"')


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Without code, where any word may stand."""
    return re.sub(r"```.*?```|`[^`\n]+`", " ", text_of(page), flags=re.DOTALL)


def operations() -> str:
    return text_of(ROOT / "docs/operations.md")


def test_every_setting_is_on_a_page() -> None:
    source = (ROOT / "platform/config/settings.py").read_text(encoding="utf-8")
    read = {a or b for a, b in _SETTING.findall(source)}
    example = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`([A-Z_]+)`", text_of(ROOT / "README.md") + operations()))
    assert len(read) > 20
    assert (read | example) - named == set()


def test_no_page_names_a_setting_that_is_not_there() -> None:
    sources = [*ROOT.glob("*.py"), *(path for folder in _code_folders() for path in folder.rglob("*.py"))]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    named = {name for page in PAGES for name in re.findall(r"\b(RATCHET_[A-Z_]+)\b", text_of(page))}
    assert {name for name in named if name not in code} == set()


def _code_folders() -> list[Path]:
    return [ROOT / name for name in ("platform", "annotations", "training", "serving")]


def test_every_command_is_on_the_operations_page() -> None:
    own = {name for name, app in get_commands().items() if app in OWN_APPS}
    assert "up" in own
    assert {name for name in own if f"manage.py {name}" not in operations()} == set()


def test_every_system_check_is_on_the_operations_page() -> None:
    ids = {
        check
        for folder in _code_folders()
        for path in folder.rglob("*.py")
        for check in _CHECK.findall(path.read_text())
    }
    assert len(ids) > 10
    assert {check for check in ids if f"`{check}`" not in operations()} == set()


def test_every_filter_of_a_synthesis_is_on_its_page() -> None:
    rows = set(re.findall(r"^\| ([a-z ]+) \|", text_of(ROOT / "docs/data.md"), re.MULTILINE))
    assert set(EXPLAINED) - rows == set()


def test_every_choice_of_training_is_on_its_page() -> None:
    page = text_of(ROOT / "docs/training.md")
    names = {field.name for kind in (Recipe, FinetuneConfig) for field in fields(kind)}
    assert {name for name in names if name not in page} == set()
    rows = dict(re.findall(r"^\| (`[a-z_`, ]+) \| ([^|]+) \|", page, re.MULTILINE))
    for given, default in rows.items():
        for name, value in zip(re.findall(r"`([a-z_]+)`", given), default.split(", "), strict=False):
            chosen = next(getattr(kind(), name) for kind in (Recipe, FinetuneConfig) if hasattr(kind(), name))
            if chosen is not None:  # otherwise it depends on data and base
                written = f"{chosen:g}" if isinstance(chosen, float) else str(chosen)
                assert (name, value.strip("` ")) == (name, written)


def test_every_measure_and_guardrail_is_on_its_page() -> None:
    page = text_of(ROOT / "docs/evaluation.md")
    source = (ROOT / "training/evaluation/scoring.py").read_text(encoding="utf-8")
    measures = set(re.findall(r'out\["([a-z0-9_]+)"\]', source)) | {"declined", "handed_off"}
    assert len(measures) > 8
    assert {name for name in measures if f"`{name}`" not in page} == set()
    limits = [re.search(r"\d+ points", row)[0] for row in _gate_rows(page)]  # type: ignore[index]
    assert limits == [f"{rail.margin * 100:g} points" for rail in GUARDRAILS.values()]
    assert [row.endswith("| yes |") for row in _gate_rows(page)] == [rail.standard for rail in GUARDRAILS.values()]


def _gate_rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("|") and "at most" in line and "points" in line]


def test_every_address_for_programs_is_on_the_api_page() -> None:
    page = text_of(ROOT / "docs/api.md")
    found = sorted({address for address in _addresses(get_resolver()) if address.startswith(OWN_ADDRESSES)})
    found += [path.removeprefix("/") for path in PROBES]
    assert len(found) > 6
    assert [address for address in found if f"/{_plain(address)}" not in page] == []


def _plain(address: str) -> str:
    """As far as it has no parameters, however it is written."""
    return re.split(r"<|\(\?P", address.replace("^", ""))[0]


def _addresses(resolver: URLResolver, before: str = "") -> Iterator[str]:
    for entry in resolver.url_patterns:
        address = before + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield address
        else:
            yield from _addresses(entry, address)


@pytest.mark.parametrize("name", NAMES)
def test_links_and_images_lead_somewhere(name: str) -> None:
    page = ROOT / name
    assert [link for link in _LINK.findall(text_of(page)) if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"[a-z]+:", link):
        return True  # see the hosts below
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in _anchors(target)


def _anchors(page: Path) -> set[str]:
    """As forges make them of headings."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_pages_point_at_no_foreign_server(name: str) -> None:
    hosts = set(re.findall(r"https?://(?:[^\s/@]*@)?([\w.-]+)", text_of(ROOT / name)))
    assert hosts - HOSTS == set()


@pytest.mark.parametrize("name", NAMES)
def test_pages_name_no_folder_of_somebodys_machine(name: str) -> None:
    assert re.findall(r"(?<![\w./~])/(?:work|home|root|Users|mnt|tmp)/\w+", text_of(ROOT / name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_finished_and_do_not_praise(name: str) -> None:
    said = set(re.findall(r"[a-z-]+", prose(ROOT / name).lower()))
    assert said & {*_PRAISE.split(), *_UNDONE.split()} == set()


def test_the_container_runs_what_is_there() -> None:
    import yaml

    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert set(services) == {"db", "web", "worker", "train"}
    commands = [service["command"][2] for service in services.values() if "command" in service]
    assert {name for name in commands if name not in get_commands()} == set()
    build = services["web"]["build"]
    assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).is_file()
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [path for line in copied for path in line.split() if not (ROOT / path).exists()] == []

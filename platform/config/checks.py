"""System checks: every misconfiguration that we know of, with an id and what to do about it.

`manage.py check` runs those that need no database; `manage.py check --database default` runs all.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Caution
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

CHECKED_DATABASE = "default"
SHORTEST_KEY = 32
BASE_MODEL_FILES = (
    ("config.json",),
    ("tokenizer.json", "tokenizer.model"),
    ("model.safetensors", "model.safetensors.index.json"),
)


_EXTENSION = """
SELECT e.default_version, e.installed_version,
    r.rolsuper OR (v.trusted AND has_database_privilege(current_database(), 'CREATE'))
FROM pg_available_extensions e
JOIN pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
JOIN pg_roles r ON r.rolname = current_user
WHERE e.name = 'vector'
"""

# --- The database -----------------------------------------------------------------------------------------------------


@register(Tags.database)
def check_database(
    *, app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E001 no pgvector, E002 pgvector too old for halfvec, E006 live adapter of another prompt, E011 other
    tables, E012 the extension is not there and may not be made, E013 another hash key."""
    if CHECKED_DATABASE not in (databases or ()):
        return []
    try:
        with connections[CHECKED_DATABASE].cursor() as cursor:
            cursor.execute(_EXTENSION)
            row = cursor.fetchone()
    except DatabaseError as error:
        return [
            Error(
                f"The database does not answer: {str(error).strip().splitlines()[0]}",
                hint="Run `python manage.py up`, or check DATABASE_URL.",
                id="ratchet.E003",
            )
        ]
    if row is None:
        return [
            Error(
                "The PostgreSQL server has no pgvector.",
                hint="Install the extension on the server (Debian: postgresql-NN-pgvector; image: pgvector/pgvector), "
                "or leave DATABASE_URL empty for the embedded server.",
                id="ratchet.E001",
            )
        ]
    version = row[1] or row[0]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (0, 8):
        return [
            Error(
                f"pgvector {version} is too old: half-precision vectors and iterative scans need 0.8.",
                hint="Update the extension, then run ALTER EXTENSION vector UPDATE.",
                id="ratchet.E002",
            )
        ]
    if row[1] is None and not row[2]:
        return [
            Error(
                "The database has no extension vector, and its role may not create it.",
                hint="Let a superuser run CREATE EXTENSION vector in that database, then try again.",
                id="ratchet.E012",
            )
        ]
    return [*_check_stored_dimension(), *_check_tables(), *_check_hash_key(), *_check_live_adapters()]


def _check_tables() -> list[CheckMessage]:
    """Of a database whose migrations are all applied: what is not there yet is said by `migrate` and readyz."""
    from config.health import database_problem
    from config.schema import HINT, schema_problem

    if database_problem() or not (problem := schema_problem()):
        return []
    return [Error(problem, hint=HINT, id="ratchet.E011")]


def _check_hash_key() -> list[CheckMessage]:
    from assistants.key_check import HINT, PROBLEM, hash_key_fits

    try:
        fits = hash_key_fits()
    except DatabaseError:
        return []  # as with live adapters
    return [] if fits else [Error(PROBLEM, hint=HINT, id="ratchet.E013")]


def _check_stored_dimension() -> list[CheckMessage]:
    """The column's dimension is fixed by a migration; the embedder's comes from the settings."""
    from knowledge.models import EMBEDDING_DIMENSION, Chunk

    with connections[CHECKED_DATABASE].cursor() as cursor:
        cursor.execute(
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'embedding'",
            [Chunk._meta.db_table],
        )
        row = cursor.fetchone()
    if row is None or row[0] in (-1, EMBEDDING_DIMENSION):
        return []
    return [
        Error(
            f"The stored vectors have {row[0]} dimensions, the code expects {EMBEDDING_DIMENSION}.",
            hint="Run `python manage.py migrate`, then embed the documents again.",
            id="ratchet.E004",
        )
    ]


def _check_live_adapters() -> list[CheckMessage]:
    from serving.models import Deployment

    try:
        live = list(Deployment.objects.exclude(adapter=None).select_related("assistant", "adapter"))
    except DatabaseError:
        return []  # not migrated yet: readyz and `up` say so
    return [
        Error(
            f"{found.adapter} of {found.assistant} was trained on another prompt ({found.adapter.prompt_digest}) "
            f"than the one served now ({found.assistant.prompt_digest}).",
            hint="Roll back, or undo the change of the assistant's prompt settings, or train a new adapter.",
            id="ratchet.E006",
        )
        for found in live
        if found.adapter is not None and found.adapter.prompt_digest != found.assistant.prompt_digest
    ]


# --- Models -----------------------------------------------------------------------------------------------------------


def base_model_problem() -> tuple[str, str] | None:
    """(what is wrong, what to do) about the base model's folder; None when it is fine or a hub name."""
    model = str(settings.RATCHET_BASE_MODEL)
    folder = Path(model)
    if not folder.is_absolute():
        if settings.RATCHET_ONLINE or _in_hub_cache(model):
            return None
        return (
            f"The base model {model} is no folder, and nothing may be downloaded.",
            "Set RATCHET_ONLINE=1 to fetch it from the hub, or RATCHET_BASE_MODEL to a folder.",
        )
    if not folder.is_dir():
        return f"The base model {folder} is missing.", "Restore the folder, or set RATCHET_BASE_MODEL to another one."
    missing = [" or ".join(names) for names in BASE_MODEL_FILES if not any((folder / name).is_file() for name in names)]
    if missing:
        return (
            f"The base model {folder} is incomplete: no {', no '.join(missing)}.",
            "Restore the folder, or set RATCHET_BASE_MODEL to another one.",
        )
    return None


def _in_hub_cache(name: str) -> bool:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return (home / "hub" / f"models--{name.replace('/', '--')}").is_dir()


@register()
def check_name_model(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E010: names could not be found, so nothing would be scrubbed and everything captured would stay held."""
    from privacy.name_model.weights import name_model_problem

    if (problem := name_model_problem()) is None:
        return []
    return [
        Error(
            f"Nothing can be scrubbed: {problem.partition(': ')[0]}.",
            hint=problem.partition(": ")[2][:1].upper() + problem.partition(": ")[2][1:] + ".",
            id="ratchet.E010",
        )
    ]


@register()
def check_models(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W001 base model, W002 no torch, E005 wrong dimension of the embedder."""
    from knowledge.models import EMBEDDING_DIMENSION

    found: list[CheckMessage] = []
    if problem := base_model_problem():
        found.append(Caution(problem[0], hint=problem[1], id="ratchet.W001"))
    if importlib.util.find_spec("torch") is None:
        found.append(
            Caution(
                "torch is not installed: this machine can serve pages and the API, but not train, embed or answer.",
                hint="pip install -r requirements/torch-cpu.txt, then the extras `embeddings` and `train`.",
                id="ratchet.W002",
            )
        )
    dimension = embedder_dimension(settings.RATCHET_EMBEDDER)
    if dimension is not None and dimension != EMBEDDING_DIMENSION:
        found.append(
            Error(
                f"The embedder {settings.RATCHET_EMBEDDER} gives {dimension} dimensions, "
                f"the database stores {EMBEDDING_DIMENSION}.",
                hint=f"Set RATCHET_EMBEDDER to a model of {EMBEDDING_DIMENSION} dimensions.",
                id="ratchet.E005",
            )
        )
    return found


def embedder_dimension(name: str) -> int | None:
    """Size of the vectors of a sentence-transformers folder, read from its files; None when that cannot be told."""
    folder = Path(name)
    for file, key in (("1_Pooling/config.json", "word_embedding_dimension"), ("config.json", "hidden_size")):
        try:
            value = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(value, int):
            return value
    return None


# --- Security and state -----------------------------------------------------------------------------------------------


@register(Tags.security)
def check_security(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W003 debug pages to others, W004 any host name, W005 short key, E007 data key, W006 plain http to others."""
    from assistants.vault import keyring

    found: list[CheckMessage] = []
    open_to_others = not is_loopback(settings.RATCHET_HOST)
    if settings.DEBUG and open_to_others:
        found.append(
            Caution(
                "DEBUG is on and others can connect: error pages show code and data.",
                hint="Set DEBUG=0.",
                id="ratchet.W003",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        found.append(Caution("ALLOWED_HOSTS takes any name.", hint="Name the hosts that you serve.", id="ratchet.W004"))
    if len(settings.SECRET_KEY) < SHORTEST_KEY:
        found.append(
            Caution(
                f"SECRET_KEY has {len(settings.SECRET_KEY)} characters.",
                hint=f"Leave it unset to have one made, or use at least {SHORTEST_KEY}.",
                id="ratchet.W005",
            )
        )
    if open_to_others and not settings.HTTPS:
        found.append(
            Caution(
                "Others can connect without TLS: passwords and keys travel in the clear.",
                hint="Put a proxy with TLS in front and set RATCHET_HTTPS=1.",
                id="ratchet.W006",
            )
        )
    try:
        keyring(settings.RATCHET_DATA_KEY)
    except ImproperlyConfigured:
        found.append(
            Error(
                "RATCHET_DATA_KEY is no key: nothing could be captured.",
                hint="Leave it unset to have one made, or use 32 random bytes in URL-safe base64 "
                "(several with commas between: the first encrypts, all of them open).",
                id="ratchet.E007",
            )
        )
    return found


@register(Tags.security, deploy=True)
def check_deployment(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W008 no TLS: one word of ours for Django's four, which name settings that RATCHET_HTTPS makes."""
    if settings.HTTPS:
        return []
    return [
        Caution(
            "RATCHET_HTTPS is off: cookies travel without TLS too, and nobody is sent to https.",
            hint="Behind a proxy that ends TLS, set RATCHET_HTTPS=1.",
            id="ratchet.W008",
        )
    ]


@register()
def check_limits(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E009 a rate limit that is no rate."""
    from assistants.limits import parse_rate

    try:
        if settings.RATCHET_RATE_LIMIT:
            parse_rate(settings.RATCHET_RATE_LIMIT)
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Leave it unset, or empty for no limit.", id="ratchet.E009")]
    return []


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@register()
def check_state(*, app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E008 state folder not writable, W007 secrets that others can read."""
    found: list[CheckMessage] = []
    var: Path = settings.VAR_DIR
    if not os.access(var, os.W_OK | os.X_OK):
        found.append(
            Error(
                f"{var} is not writable.",
                hint="Give it to the user who runs this, or set RATCHET_VAR.",
                id="ratchet.E008",
            )
        )
    open_files = [path for path in (settings.SECRETS_DIR, *_files(settings.SECRETS_DIR)) if _others_can_read(path)]
    if open_files:
        found.append(
            Caution(
                f"Others can read {open_files[0]}"
                + (f" and {len(open_files) - 1} more." if len(open_files) > 1 else "."),
                hint=f"chmod -R go-rwx {settings.SECRETS_DIR}",
                id="ratchet.W007",
            )
        )
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) and folder.is_dir() else []


def _others_can_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False

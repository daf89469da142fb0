"""Makes a backup beside the running platform."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import connection
from django.utils import timezone

from config.backups import archive, programs
from config.backups.archive import DATABASE, Manifest

FOLDERS = {"adapters": "RATCHET_ADAPTERS_DIR", "runs": "RATCHET_RUNS_DIR"}
"""Name in the archive → setting."""
SPOOL, SECRETS = "spool", "secrets"
COUNTED = ("assistants.Assistant", "capture.Turn", "annotations.Annotation", "training.Example", "training.Adapter")


def make(target: Path, *, with_secrets: bool) -> Manifest:
    """The database first, then the files: an adapter that came in between is a file too many, never one too few.

    Raises:
        BackupError: one sentence with what to do.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ratchet-backup-") as folder:
        dumped = Path(folder) / DATABASE
        programs.dump(connection.settings_dict, dumped)
        members = {DATABASE: dumped, **dict(state_files(with_secrets=with_secrets))}
        return archive.write(target, _facts(with_secrets=with_secrets), members)


def state_files(*, with_secrets: bool) -> Iterator[tuple[str, Path]]:
    roots = {name: Path(getattr(settings, setting)) for name, setting in FOLDERS.items()}
    roots[SPOOL] = settings.VAR_DIR / SPOOL
    if with_secrets:
        roots[SECRETS] = settings.SECRETS_DIR
    for name, root in roots.items():
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield f"{name}/{path.relative_to(root).as_posix()}", path


def schema_digest() -> str:
    """Of all our migrations: a database fits the code that has the same."""
    folders = sorted({Path(config.path).resolve() for config in apps.get_app_configs()})
    root = Path(settings.BASE_DIR).resolve()
    ours = [path for path in folders if path.is_relative_to(root) and "site-packages" not in path.parts]
    files = [file for path in ours for file in sorted(path.glob("migrations/0*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _facts(*, with_secrets: bool) -> Manifest:
    counts: dict[str, Any] = {}
    for label in COUNTED:
        counts[label] = apps.get_model(label)._default_manager.count()
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version')")
        server = str(cursor.fetchone()[0])
    return Manifest(
        made_at=timezone.now().isoformat(timespec="seconds"),
        version=version("ratchet"),
        server=server,
        schema=schema_digest(),
        with_secrets=with_secrets,
        counts=counts,
    )

"""`manage.py backup FILE`: database, adapters, runs and spool in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from assistants.services import audit
from config.backups.making import make
from config.backups.programs import BackupError
from config.backups.server import running_database
from config.health import database_problem
from config.postgres import PostgresError


class Command(BaseCommand):
    help = "Writes database, adapters, runs and spool into one file, beside the running platform or without it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("target", type=Path, help="A file that does not exist yet, or a folder.")
        parser.add_argument(
            "--with-secrets",
            action="store_true",
            help="The keys too: whoever has the file can read everything then. Without, keep var/secrets elsewhere.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        target: Path = options["target"].expanduser().resolve()
        if target.is_dir():
            target = target / f"ratchet-{timezone.now():%Y%m%d-%H%M%S}.tar"
        if not target.parent.is_dir():
            raise CommandError(f"There is no folder {target.parent}.")
        try:
            with running_database():
                if problem := database_problem():
                    raise CommandError(f"{problem} There is nothing to back up yet.")
                manifest = make(target, with_secrets=options["with_secrets"])
                facts = {"files": len(manifest.files), "secrets": manifest.with_secrets}
                audit(assistant=None, actor=None, action="backup.made", details=facts)
        except (BackupError, PostgresError, OSError, psycopg.Error) as error:
            raise CommandError(str(error).strip()) from error
        size = target.stat().st_size / 2**20
        self.stdout.write(f"{target}: {size:.1f} MB, {len(manifest.files)} files, {_counts(manifest.counts)}.")
        if not manifest.with_secrets:
            self.stdout.write(
                "The keys are not in it: keep a copy of var/secrets apart. Without ratchet_data_key, what waits to be "
                "scrubbed is lost; without ratchet_hash_key, nothing starts until you say that it may."
            )


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} × {label.rpartition('.')[2]}" for label, count in counts.items())

"""`manage.py restore FILE`: puts a backup back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.key_check import PROBLEM, hash_key_fits
from assistants.services import audit
from config.backups.programs import BackupError
from config.backups.restoring import restore
from config.backups.server import running_database
from config.postgres import PostgresError
from config.supervisor import AlreadyRunning, Lock


class Command(BaseCommand):
    help = "Puts a backup back. The platform must be stopped; what was there is kept under another name."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", type=Path, help="A file that `manage.py backup` wrote.")
        parser.add_argument("--replace", action="store_true", help="Although there is something here already.")
        parser.add_argument(
            "--other-schema", action="store_true", help="Although it was made by code with another database schema."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        lock = Lock(settings.VAR_DIR)
        try:
            lock.acquire()
        except AlreadyRunning as error:
            raise CommandError(str(error)) from error
        try:
            with running_database():
                manifest, kept = restore(
                    options["source"].expanduser(), replace=options["replace"], other_schema=options["other_schema"]
                )
                call_command("migrate", verbosity=0, interactive=False)
                facts = {"made_at": manifest.made_at}
                audit(assistant=None, actor=None, action="backup.restored", details=facts)
                fits = hash_key_fits()
        except (BackupError, PostgresError, OSError, psycopg.Error) as error:
            raise CommandError(str(error).strip()) from error
        finally:
            lock.release()
        self.stdout.write(f"The backup of {manifest.made_at} is back. Start with `python manage.py up`.")
        for name in kept:
            self.stdout.write(f"  kept: {name}")
        if not manifest.with_secrets:
            self.stdout.write(
                "It held no keys: those of this machine stay. Where it was made with others, put ratchet_data_key and "
                "ratchet_hash_key of the old var/secrets back before you start. Leave database_password: the server of "
                "this machine has its own."
            )
        if not fits:
            self.stdout.write(self.style.WARNING(f"As it is, nothing would start: {PROBLEM}"))

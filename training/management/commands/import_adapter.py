"""`manage.py import_adapter helpdesk ./adapter`: a PEFT folder or a zip of one becomes an adapter of the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.models import Assistant
from training.registry.importing import Claim, ImportRefused, import_folder, import_zip


class Command(BaseCommand):
    help = "Checks a folder that PEFT has saved (or a zip of it) and registers it as an adapter of an assistant."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("assistant", help="slug of the assistant")
        parser.add_argument("path", type=Path, help="folder, or zip")
        parser.add_argument(
            "--prompt-ours",
            action="store_true",
            help="it has no manifest.json, and was trained with this assistant's prompt format",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        assistant = Assistant.objects.filter(slug=options["assistant"]).first()
        if assistant is None:
            raise CommandError(f"There is no assistant {options['assistant']!r}.")
        path: Path = options["path"]
        claim = Claim(prompt_ours=options["prompt_ours"])
        try:
            if path.is_file():
                with path.open("rb") as file:
                    adapter = import_zip(assistant=assistant, file=file, claim=claim)
            else:
                adapter = import_folder(assistant=assistant, folder=path, claim=claim)
        except ImportRefused as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{adapter} of {assistant.slug}: evaluate it before it is promoted.")

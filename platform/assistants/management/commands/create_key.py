"""`manage.py create_key demo --name frontend --scopes log,read`: prints a new key once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from assistants.models import Assistant, Scope
from assistants.services import issue_key


class Command(BaseCommand):
    help = "Makes an API key for an assistant and prints its secret, which is not stored and never shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("assistant", help="slug of the assistant")
        parser.add_argument("--name", default="command line", help="what the key is for")
        parser.add_argument("--scopes", default=Scope.LOG.value, help=f"comma-separated, of {', '.join(Scope.values)}")
        parser.add_argument("--days", type=int, help="days until it expires (never when left out)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            assistant = Assistant.objects.get(slug=options["assistant"])
        except Assistant.DoesNotExist:
            known = ", ".join(Assistant.objects.values_list("slug", flat=True)[:20]) or "there is none yet"
            raise CommandError(
                f"There is no assistant {options['assistant']!r} (known: {known}). "
                f"Make it on the home page, or with manage.py create_assistant {options['assistant']}."
            ) from None
        days = options["days"]
        try:
            key, secret = issue_key(
                assistant=assistant,
                name=options["name"],
                scopes=[scope.strip() for scope in options["scopes"].split(",") if scope.strip()],
                expires_at=timezone.now() + timedelta(days=days) if days is not None else None,
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stderr.write(f"Key {key} for {assistant.slug}: {', '.join(key.scopes)}. Keep it; it is shown only now.")
        self.stdout.write(secret)

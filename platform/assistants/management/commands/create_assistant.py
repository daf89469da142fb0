"""`manage.py create_assistant helpdesk --admin ada`: an assistant without opening the pages."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.services import create_assistant


class Command(BaseCommand):
    help = "Makes an assistant; everything else about it is set on its page. Keys: create_key."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("assistant", help="its slug, the model's name on the wire: letters, digits, - and _")
        parser.add_argument("--name", help="as people read it (the slug when left out)")
        parser.add_argument("--admin", help="user name of the person who becomes its admin; superusers need no role")

    def handle(self, *args: Any, **options: Any) -> None:
        slug, person = options["assistant"], None
        if options["admin"] is not None:
            person = User.objects.filter(username=options["admin"], is_active=True).first()
            if person is None:
                raise CommandError(f"There is no active user {options['admin']!r}. Add people on the page Users first.")
        name = options["name"] or slug.replace("-", " ").replace("_", " ").capitalize()
        try:
            made = create_assistant(slug=slug, name=name, created_by=person)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(f"{made.name} is there, as {made.slug!r}. Next: manage.py create_key {made.slug}")

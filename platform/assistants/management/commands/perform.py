"""`manage.py perform training.Run 7`: performs one queued piece of work in this process."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError

from assistants.background import BackgroundWork
from assistants.performing import Interrupted, perform_detached
from assistants.priority import give_way


class Command(BaseCommand):
    help = "Performs one queued piece of background work. The worker starts it; by hand it is useful for looking on."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="app.Model, such as training.Run")
        parser.add_argument("pk", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            model = apps.get_model(options["model"])
        except (LookupError, ValueError):
            raise CommandError(f"There is no model {options['model']!r}. Name it like training.Run.") from None
        if not issubclass(model, BackgroundWork):
            raise CommandError(f"{options['model']} is not background work.")
        work = model._default_manager.filter(pk=options["pk"]).first()
        if work is None:
            raise CommandError(f"There is no {options['model']} {options['pk']}.")
        give_way()
        try:
            perform_detached(work)
        except Interrupted:
            self.stderr.write("Stopped; the work is queued again.")
            sys.exit(143)
        if work.state == BackgroundWork.State.FAILED:
            sys.exit(1)

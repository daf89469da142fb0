"""`manage.py simulate_traffic`: a day of simulated users, a bad candidate and a good one, through the real services."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from assistants.models import Assistant
from serving.experiments.day import SLUG, Day
from serving.models import Deployment


class Command(BaseCommand):
    help = (
        "Lives a day of simulated users minute by minute: a bad candidate is taken back by its guardrail, a good one "
        "goes live. Users, answers and feedback are simulated (no model is asked); all else is what runs every day."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--conversations", type=int, default=4000, help="Of the day (default: %(default)s).")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--every", type=int, default=1, help="Minutes between two passes of the rules.")
        parser.add_argument(
            "--keep", action="store_true", help=f"Keep it as the assistant {SLUG}, to look at its pages."
        )

    def handle(self, *args: Any, conversations: int, seed: int, every: int, keep: bool, **options: Any) -> None:
        if not 100 <= conversations <= 100_000:
            raise CommandError("--conversations: from 100 to 100,000.")
        if not 1 <= every <= 60:
            raise CommandError("--every: from 1 to 60 minutes.")
        if Assistant.objects.filter(slug=SLUG).exists():
            raise CommandError(f"There is an assistant {SLUG} from an earlier day already; delete it first.")
        began = time.monotonic()
        yesterday = timezone.now().date().toordinal() - 1
        midnight = datetime.fromordinal(yesterday).replace(tzinfo=UTC)
        day = Day(conversations, seed, self.stdout.write, midnight, every)
        with transaction.atomic():
            assistant = day.run()
            live = Deployment.objects.select_related("adapter").get(assistant=assistant)
            self.stdout.write(f"24:00 {live.adapter} is live.")
            for name, met in sorted(day.met.items()):
                self.stdout.write(f"      {name}: answered {met} conversations")
            if not keep:
                transaction.set_rollback(True)
        self.stdout.write(f"{time.monotonic() - began:.0f} s{'' if keep else '; nothing of it was kept'}")

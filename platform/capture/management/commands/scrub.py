"""`manage.py scrub [--once]`: scrubs in the foreground what waits in quarantine, and closes traces that are due."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from capture.claims import BATCH, claim
from capture.models import Quarantine
from capture.otlp.closing import close_traces
from capture.scrub import ScrubReport, scrub_claimed


class Command(BaseCommand):
    help = "Scrubs what waits in quarantine; goes on until Ctrl-C unless --once is given."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="stop when nothing is left")
        parser.add_argument("--batch", type=int, default=BATCH, help="items at a time")

    def handle(self, *args: Any, **options: Any) -> None:
        total = ScrubReport()
        try:
            while True:
                close_traces()
                claimed = claim(limit=options["batch"])
                if claimed.rows:
                    scrub_claimed(claimed, total)
                    waiting = Quarantine.objects.waiting().count()
                    self.stderr.write(f"{total.sentence}, {waiting} waiting")
                elif options["once"]:
                    break
                else:
                    time.sleep(1)
        except KeyboardInterrupt:
            pass
        self.stdout.write(total.sentence)

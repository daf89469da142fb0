"""`manage.py forget_turns`: turns older than their assistant keeps them go now, and not once the worker comes to it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.models import Assistant
from serving import retention


class Command(BaseCommand):
    help = (
        "Deletes turns older than their assistant keeps them, oldest first, as the worker does each day. "
        "May be stopped at any moment and run again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--assistant", default="", help="Slug; default: every assistant that keeps turns for a time."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only counts, by month, what would go and what stays."
        )
        parser.add_argument("--days", type=int, help="With --dry-run: as if turns were kept so long.")
        parser.add_argument("--seconds", type=float, help="Stop after so long; the next run goes on.")

    def handle(self, *args: Any, **options: Any) -> None:
        days: int | None = options["days"]
        if days is not None and (not options["dry_run"] or days < 1):
            raise CommandError("--days goes with --dry-run, and is 1 or more. What counts stands on the assistant.")
        for assistant in self._assistants(options["assistant"], days):
            if options["dry_run"]:
                self._count(assistant)
            elif not self._forget(assistant, options["seconds"]):
                self.stdout.write("The time is over; run it again to go on.")
                return

    def _assistants(self, slug: str, days: int | None) -> list[Assistant]:
        found = Assistant.objects.filter(slug=slug) if slug else Assistant.objects.all()
        assistants = list(found.order_by("pk"))
        if slug and not assistants:
            raise CommandError(f"There is no assistant {slug!r}.")
        for assistant in assistants:
            assistant.keep_turns_days = days or assistant.keep_turns_days
        kept = [assistant for assistant in assistants if assistant.keep_turns_days is not None]
        if not kept:
            raise CommandError("Turns are kept for ever: set `keep turns days` on the page of the assistant.")
        return kept

    def _count(self, assistant: Assistant) -> None:
        going, staying = Counter[str](), Counter[str]()
        for page in retention.pages(assistant):
            due = set(page.due)
            for asked_at, conversation in page.turns:
                (going if conversation in due else staying)[f"{asked_at:%Y-%m}"] += 1
        self.stdout.write(f"{assistant.slug} keeps turns for {assistant.keep_turns_days} days.")
        for month in sorted({*going, *staying}):
            self.stdout.write(f"  {month}  {going[month]:>12,} go  {staying[month]:>12,} stay")
        self.stdout.write(
            f"  in all   {going.total():>12,} go  {staying.total():>12,} stay (worked on, or of a dataset, or of a "
            "conversation that went on)"
        )

    def _forget(self, assistant: Assistant, seconds: float | None) -> bool:
        began = time.monotonic()
        end = None if seconds is None else began + seconds
        gone, rest = retention.forget_old_of(assistant, end=end)
        self.stdout.write(f"{assistant.slug}: {gone:,} turns went in {time.monotonic() - began:.0f} s.")
        return rest is None

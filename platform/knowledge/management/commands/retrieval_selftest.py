"""``manage.py retrieval_selftest``: does the vector index find what an exact search finds?"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from assistants.models import Assistant
from knowledge.selftest import AT, MAX_SAMPLE, SAMPLE, NothingToTest, self_test


class Command(BaseCommand):
    help = "Compares the index with exact search on a sample of each assistant's chunks and says recall@10."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--assistant", metavar="SLUG", help="only this one")
        parser.add_argument("--sample", type=int, default=SAMPLE, help=f"questions, at most {MAX_SAMPLE} (%(default)s)")
        parser.add_argument("--at-least", type=float, metavar="RECALL", help="exit with an error below this recall")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = Assistant.objects.filter(**({"slug": options["assistant"]} if options["assistant"] else {}))
        if options["assistant"] and not chosen:
            raise CommandError(f"There is no assistant {options['assistant']!r}.")
        low = False
        for assistant in chosen:
            try:
                result = self_test(assistant=assistant, sample=options["sample"])
            except NothingToTest as error:
                self.stdout.write(f"{assistant.slug}: {error}")
                continue
            self.stdout.write(
                f"{assistant.slug}: recall@{AT} {result.recall:.4f} (worst question {result.worst:.2f}) over "
                f"{result.asked} questions and {result.chunks} chunks; "
                + ("" if result.index_ms is None else f"index {result.index_ms} ms, ")
                + f"exact {result.exact_ms} ms; served by the {result.path} path"
            )
            low |= options["at_least"] is not None and result.path == "index" and result.recall < options["at_least"]
        if low:
            raise CommandError(f"Recall is below {options['at_least']}: see docs/operations.md, Retrieval.")

"""``manage.py retrieval_benchmark FILE``: recall, reciprocal rank and nDCG of an assistant's retrieval."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from statistics import median
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from assistants.models import Assistant
from knowledge import metrics
from knowledge.benchmarking import UnreadableBenchmark, ask, read_questions
from knowledge.configuration import RetrievalSettings, SettingsRefused, checked, config_digest, settings_of
from knowledge.models import RetrievalConfiguration


class Command(BaseCommand):
    help = (
        "Asks the questions of a file (one JSON object per line: question, history, gold) and says how well the right "
        "passages are found. Golds are documents, sentences of documents, or texts. Nothing is stored."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--assistant", metavar="SLUG", help="whose documents; not needed where there is only one")
        parser.add_argument("--configuration", type=int, metavar="N", help="a saved version instead of the active one")
        parser.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting: --set words=0"
        )
        parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth question")
        parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        assistant = _assistant(options["assistant"])
        try:
            settings = _settings(assistant, options["configuration"], options["set"])
            questions = read_questions(options["file"].read_text(encoding="utf-8").split("\n"))
        except (OSError, UnicodeDecodeError):
            raise CommandError(f"{options['file']} cannot be read as text.") from None
        except (SettingsRefused, UnreadableBenchmark) as error:
            raise CommandError(str(error)) from None
        outcomes = list(ask(assistant=assistant, questions=questions[:: max(1, options["every"])], settings=settings))
        measured = [outcome.measures for outcome in outcomes if outcome.ranks]
        result = {
            "configuration": config_digest(assistant, settings),
            "questions": len(outcomes),
            "with_gold": len(measured),
            **{name: round(value, 4) for name, value in metrics.mean(measured).items()},
            "p50_ms": round(median(outcome.seconds for outcome in outcomes) * 1000, 1),
        }
        if options["json"]:
            self.stdout.write(json.dumps(result))
            return
        for name, value in result.items():
            self.stdout.write(f"{name:16} {value}")


def _assistant(slug: str | None) -> Assistant:
    found = list(Assistant.objects.filter(**({"slug": slug} if slug else {}))[:2])
    if len(found) != 1:
        raise CommandError(f"There is no assistant {slug!r}." if slug else "Say which one: --assistant SLUG.")
    return found[0]


def _settings(assistant: Assistant, number: int | None, changes: list[str]) -> RetrievalSettings:
    values = settings_of(assistant).model_dump(mode="json")
    if number is not None:
        saved = RetrievalConfiguration.objects.filter(assistant=assistant, number=number).first()
        if saved is None:
            raise CommandError(f"{assistant} has no retrieval configuration {number}.")
        values = dict(saved.settings)
    for change in changes:
        name, separator, value = change.partition("=")
        if not separator:
            raise CommandError(f"--set wants NAME=VALUE, not {change!r}.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return checked(values)

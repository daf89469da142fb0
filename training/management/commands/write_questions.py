"""Training questions from the documents of one assistant, written here and now; the page shows them as any others."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from assistants.background import launch
from assistants.models import Assistant
from assistants.services import audit
from training.models import Synthesis
from training.services import NotPossible, check_synthesis
from training.synthesis.plan import STYLES, WRITERS, Plan, PlanError


class Command(BaseCommand):
    help = "Writes training questions from an assistant's documents and prints what became of them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("assistant", help="its short name")
        parser.add_argument("--wanted", type=int, default=200, help="questions to keep (default: 200)")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--writer", choices=list(WRITERS))
        parser.add_argument("--style", choices=list(STYLES))
        parser.add_argument("--plan", type=Path, help="JSON file with fields of the plan")
        parser.add_argument("--show", action="store_true", help="print the kept questions, one line of JSON each")

    def handle(self, *args: Any, **options: Any) -> None:
        assistant = Assistant.objects.filter(slug=options["assistant"]).first()
        if assistant is None:
            raise CommandError(f"There is no such assistant: {options['assistant']}.")
        try:
            plan = Plan.from_dict({**self._file(options["plan"]), **self._given(options)})
            check_synthesis(assistant=assistant, wanted=options["wanted"], plan=plan)
        except (PlanError, NotPossible) as error:
            raise CommandError(str(error)) from error
        synthesis = Synthesis.objects.create(
            assistant=assistant, wanted=options["wanted"], seed=options["seed"], plan=plan.as_dict()
        )
        audit(assistant=assistant, actor=None, action="synthesis.started", target=str(synthesis))
        launch(synthesis, foreground=True)
        synthesis.refresh_from_db()
        if options["show"]:
            columns = ("form", "history", "question", "response", "source", "lineage")
            for row in synthesis.items.filter(dropped_by="").order_by("pk").values(*columns):
                self.stdout.write(json.dumps(row, ensure_ascii=False))
        self.stdout.write(json.dumps({"synthesis": synthesis.pk, "seconds": synthesis.seconds, **synthesis.funnel}))
        if synthesis.state != Synthesis.State.SUCCEEDED:
            raise CommandError(synthesis.error or f"It ended as {synthesis.get_state_display().lower()}.")

    def _given(self, options: dict[str, Any]) -> dict[str, Any]:
        return {name: options[name] for name in ("writer", "style") if options[name]}

    def _file(self, path: Path | None) -> dict[str, Any]:
        if path is None:
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CommandError(f"{path} cannot be read as JSON.") from error
        if not isinstance(found, dict):
            raise CommandError(f"{path} holds no JSON object.")
        return found

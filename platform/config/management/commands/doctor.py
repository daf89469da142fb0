"""`manage.py doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from config.doctor import Finding, examine, worst

SIGNS = {"ok": "✓", "note": "·", "warning": "!", "error": "✗"}


class Command(BaseCommand):
    help = (
        "Looks at packages, disk, settings, database, processes, engine, quarantine, long work and live adapters. "
        "Reads only. Exit code 1 when something is an error."
    )
    requires_system_checks: list[str] = []  # it runs them itself, and goes on

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="One JSON object with all findings.")

    def handle(self, *args: Any, **options: Any) -> None:
        found = examine()
        if options["json"]:
            self.stdout.write(json.dumps({"worst": worst(found), "findings": [f.as_dict() for f in found]}, indent=2))
        else:
            self._show(found)
        if worst(found) == "error":
            sys.exit(1)

    def _show(self, found: list[Finding]) -> None:
        style = self.style
        styles: dict[str, Callable[[str], str]] = {
            "ok": style.SUCCESS, "note": str, "warning": style.WARNING, "error": style.ERROR,
        }  # fmt: skip
        about = ""
        for finding in found:
            if finding.about != about:
                about = finding.about
                self.stdout.write(about)
            self.stdout.write(f"  {styles[finding.level](SIGNS[finding.level])} {finding.text}")
            if finding.hint and finding.level != "ok":
                self.stdout.write(f"    {finding.hint}")
        counts = {level: sum(f.level == level for f in found) for level in ("error", "warning")}
        self.stdout.write(f"{counts['error']} errors, {counts['warning']} warnings.")

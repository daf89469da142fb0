"""``manage.py canaries plant|check``: post people who do not exist, then prove that nothing stored knows them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.models import Assistant
from capture.canaries import check, items_of, plant
from capture.leaks import CANARIES, canaries_of
from capture.models import Quarantine

SECONDS = 30


class Command(BaseCommand):
    help = (
        "plant: posts seeded fake people (name, mail, phone, IBAN, card, address; several wordings) to an assistant. "
        "check: looks for them in every text column of every table and in the files of the state folder; ends with an "
        "error when one is found. Wait until the quarantine is empty in between."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("act", choices=("plant", "check"))
        parser.add_argument("--assistant", required=True, help="Slug of the assistant.")
        parser.add_argument("--count", type=int, default=CANARIES, help="How many people (1 to 50).")
        parser.add_argument("--url", help="plant: post over HTTP to this address instead of in this process.")
        parser.add_argument("--key", help="plant: API key for --url, with the scope log.")
        parser.add_argument("--files", action="append", default=[], help="check: also look below this folder.")

    def handle(self, *args: Any, **options: Any) -> None:
        assistant = Assistant.objects.filter(slug=options["assistant"]).first()
        if assistant is None:
            raise CommandError("There is no such assistant.")
        if not 1 <= options["count"] <= 50:
            raise CommandError("--count must be from 1 to 50.")
        if options["act"] == "plant":
            self._plant(assistant, options)
        else:
            self._check(assistant, options)

    def _plant(self, assistant: Assistant, options: dict[str, Any]) -> None:
        if bool(options["url"]) != bool(options["key"]):
            raise CommandError("--url and --key go together.")
        if options["url"]:
            turns, feedback = items_of(assistant, options["count"])
            counts = _post(options, "turns/batch", turns) + _post(options, "feedback", feedback)
        else:
            counts = plant(assistant, count=options["count"])
        self.stdout.write(", ".join(f"{n} {status}" for status, n in sorted(counts.items())))

    def _check(self, assistant: Assistant, options: dict[str, Any]) -> None:
        if waiting := Quarantine.objects.filter(assistant=assistant).count():
            self.stdout.write(f"{waiting} items of this assistant are still in quarantine, where nobody can read them.")
        folders = [Path(settings.VAR_DIR) / name for name in ("log", "runs", "adapters", "spool", "imports")]
        folders += [Path(name) for name in options["files"]]
        found = check(canaries_of(assistant, options["count"]), folders=[f for f in folders if f.is_dir()])
        for place, counts in sorted(found.places.items()):
            self.stdout.write(f"✗ {place}: " + ", ".join(f"{n} × {kind}" for kind, n in sorted(counts.items())))
        looked = f"{found.columns} columns and {found.files} files looked through"
        if found.too_large:
            looked += f", {found.too_large} files too large to read"
        if found.total:
            raise CommandError(f"{found.total} canaries survived ({looked}).")
        self.stdout.write(f"✓ No canary survived ({looked}).")


def _post(options: dict[str, Any], path: str, items: list[dict[str, Any]]) -> Counter[str]:
    url = options["url"].rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise CommandError("--url begins with http:// or https://.")
    try:
        answer = httpx.post(
            f"{url}/api/v1/{path}", json=items, headers={"Authorization": f"Bearer {options['key']}"}, timeout=SECONDS
        )
        answer.raise_for_status()
        results = answer.json().get("results", [])
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        raise CommandError(f"{path} could not be posted: {error}") from None
    return Counter(str(result.get("status")) for result in results)

"""Fills the database of DATABASE_URL with stored turns (`python _capture_fill.py N`) and prints a key for them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


def main(count: int) -> None:
    import django

    django.setup()
    from _capture_million import fill

    from assistants.models import Assistant
    from assistants.services import issue_key

    assistant, _ = Assistant.objects.get_or_create(slug="stored", defaults={"name": "Stored"})
    print(f"filling up to {count:,} turns", file=sys.stderr, flush=True)
    fill(assistant.pk, count, lambda line: print(line, file=sys.stderr, flush=True))
    print(issue_key(assistant=assistant, name="bench", scopes=["log", "read"])[1])


if __name__ == "__main__":
    main(int(sys.argv[1]))

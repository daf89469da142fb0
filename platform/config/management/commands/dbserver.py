"""`manage.py dbserver`: the embedded PostgreSQL alone, in the foreground."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config import dbserver


class Command(BaseCommand):
    help = "Runs the embedded PostgreSQL in the foreground until Ctrl-C. `manage.py up` does this by itself."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.EMBEDDED_DATABASE:
            raise CommandError(
                "DATABASE_URL names a server of its own; there is no embedded one to run. Unset it first."
            )
        code = dbserver.serve(settings.VAR_DIR)
        if code:
            sys.exit(code)

"""`manage.py launcher`: starts long work where no supervisor does, in a container say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from config import processes

PATIENCE = 20.0
"""Seconds that work has for its checkpoint; below the 30 that a container has to stop."""


class Command(BaseCommand):
    help = (
        "Starts long work (training, evaluations, datasets), each in a process, until SIGTERM or Ctrl-C; then has "
        "it write a checkpoint and give itself back. `manage.py up` does this by itself."
    )
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        program = processes.launcher()
        # A mark of its own, since what an `up` on this machine has started is not ours to end.
        mark = f"{settings.VAR_DIR}#launcher-{os.getpid()}"
        env = {**processes.child_env(settings.VAR_DIR, program.env, marked=False), processes.MARKER: mark}
        # A session of its own: Ctrl-C reaches only us, and the cluster goes before its work does.
        cluster = subprocess.Popen(program.command, env=env, cwd=settings.BASE_DIR, start_new_session=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: cluster.terminate())
        code = cluster.wait()
        # Work leads a session of its own and outlives the cluster. Ended with the container it would have died, which
        # counts as an attempt; told, it goes on where it was.
        processes.sweep(Path(mark), grace=PATIENCE)
        if code > 0:
            sys.exit(code)

"""The recipe as a child process: started, listened to, and ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from django.conf import settings

from training.finetune.reporting import LIFELINE

POLL_SECONDS = 0.5
STOP_SECONDS = 8.0
LOG_TAIL_BYTES = 20_000


class RecipeProcess:
    """``with RecipeProcess(config, log=…) as child``: the child never outlives the block, nor this process."""

    def __init__(self, config: Path, *, log: Path) -> None:
        self.config, self.log = config, log

    def __enter__(self) -> RecipeProcess:
        root = str(settings.BASE_DIR)
        env = recipe_environment()
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "training.finetune.recipe", str(self.config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=root,
                env=env,
            )
        return self

    def events(self) -> Iterator[dict[str, Any] | None]:
        """What the child says, until it ends; None whenever it has been silent for a moment."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                if not selector.select(POLL_SECONDS):
                    yield None
                    continue
                piece = os.read(descriptor, 65_536)
                if not piece:
                    return
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)

    def wait(self) -> int:
        return self.process.wait()

    def last_line(self) -> str:
        """The last line of the log, such as the error of a traceback."""
        lines = [line for line in log_tail(self.log).splitlines() if line.strip()]
        return lines[-1][:500] if lines else "it said nothing."

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def recipe_environment() -> dict[str, str]:
    """For a child that knows no Django and ends with us."""
    root = str(settings.BASE_DIR)
    paths = [root, os.path.join(root, "platform"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), LIFELINE: "1", "PYTHONUNBUFFERED": "1"}
    env.pop("DATABASE_URL", None)  # a recipe needs no database, and no password
    return env


def log_tail(path: Path, size: int = LOG_TAIL_BYTES) -> str:
    """The end of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""

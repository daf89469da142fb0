"""Runs the platform beside the demo: `manage.py up` as a child, or the one that is running already."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from django.conf import settings

from serving.demo.frontend import DemoFailed

START_SECONDS = 180


class Platform:
    """After `start`, ``url`` answers. A context manager: what it started, it stops at the end."""

    def __init__(self) -> None:
        self.url = ""
        self.lines: list[str] = []
        self._child: subprocess.Popen[str] | None = None
        self._up = threading.Event()

    def __enter__(self) -> Self:
        return self

    def start(self) -> Self:
        """Raises DemoFailed when the platform does not come up."""
        if url := self._running():
            self.url = url
            return self
        manage = Path(settings.BASE_DIR) / "manage.py"
        self._child = subprocess.Popen(
            [sys.executable, str(manage), "up", "--quiet", "--attached"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches the demo, which then stops its platform in order
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while not self._up.wait(0.2):
            if self._child.poll() is not None:
                raise DemoFailed("The platform did not start:\n" + "\n".join(self.lines[-8:]))
            if time.monotonic() > deadline:
                self.stop()
                raise DemoFailed(f"The platform was not ready within {START_SECONDS} s; see var/log.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Until the platform ends or somebody presses Ctrl-C."""
        if self._child is not None:
            self._child.wait()

    @property
    def is_ours(self) -> bool:
        return self._child is not None

    def stop(self) -> None:
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()

    def _read(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        for line in self._child.stdout:
            text = re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()
            self.lines.append(text)
            if match := re.search(r"running at (http\S+?)/?\.? ", text + " "):
                self.url = match.group(1)
                self._up.set()

    def _running(self) -> str:
        """The address of a platform that holds this state folder's lock; empty when the lock is free."""
        path = Path(settings.VAR_DIR) / "up.lock"
        try:
            with path.open("a+", encoding="utf-8") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    handle.seek(0)
                    return str(json.loads(handle.read() or "{}").get("url") or "").rstrip("/")
        except (OSError, ValueError):
            return ""
        return ""

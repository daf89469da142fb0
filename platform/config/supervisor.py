"""Runs the platform's processes as one group: starts them in order, shows their logs with a prefix, starts again what
dies, and stops everything within seconds, whatever those processes have started themselves."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from config.dbserver import die_with_parent
from config.janitor import DONE, GRACE_SECONDS
from config.processes import Program, child_env, sweep

LOG_BYTES = 5 * 2**20
LOG_FILES = 3
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
DATABASE = "db"
DATABASE_GRACE = 30.0
"""A fast shutdown writes everything that is in memory; killing it would only move that work to the next start."""
STEADY_AFTER = 60.0
"""A child that ran this long is well again: its next restart is quick."""
LOOK_EVERY = 10.0
MOST_SILENT = 6
"""Looks in a row at which a child that was ready was not. Counted, because nobody looks while we are stopped."""
_COLOURS = ("36", "32", "35", "33", "34", "96")


class AlreadyRunning(Exception):
    """Another supervisor holds the state folder. The message is one sentence."""


class Lock:
    """One supervisor per state folder; the kernel lets go when it dies. The file tells who it is."""

    def __init__(self, var: Path) -> None:
        self.path = var / "up.lock"
        self._handle: IO[str] | None = None

    def acquire(self) -> None:
        handle = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = _read_json(handle.read())
            handle.close()
            at = f" at {owner['url']}" if owner.get("url") else ""
            raise AlreadyRunning(
                f"The platform is already running{at} (process {owner.get('pid', '?')}). Stop that one first."
            ) from None
        self._handle = handle
        self.write({"pid": os.getpid()})

    def write(self, facts: dict[str, object]) -> None:
        assert self._handle is not None
        self._handle.seek(0)
        self._handle.truncate()
        json.dump(facts, self._handle)
        self._handle.flush()

    def release(self) -> None:
        if self._handle is not None:
            self._handle.seek(0)
            self._handle.truncate()
            self._handle.close()
            self._handle = None


def _read_json(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class Logs:
    """Lines of the children: to the console with a coloured prefix, and to one rotated file each."""

    def __init__(self, folder: Path, console: IO[str] | None, *, width: int = 8) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.console, self.width = folder, console, width
        self._colour = bool(console and console.isatty() and not os.environ.get("NO_COLOR"))
        self._writers: dict[str, logging.Handler] = {}
        self._lock = threading.Lock()

    def line(self, name: str, text: str) -> None:
        with self._lock:
            if self.console is not None:
                self._show(name, text)
            record = logging.LogRecord(name, logging.INFO, "", 0, text, None, None)
            self._writer(name).handle(record)

    def _show(self, name: str, text: str) -> None:
        assert self.console is not None
        prefix = f"{name:<{self.width}}|"
        if self._colour:
            code = _COLOURS[sum(name.encode()) % len(_COLOURS)]
            prefix = f"\x1b[{code}m{prefix}\x1b[0m"
        with contextlib.suppress(OSError, ValueError):  # a closed terminal must not stop the platform
            self.console.write(f"{prefix} {text}\n")
            self.console.flush()

    def _writer(self, name: str) -> logging.Handler:
        if name not in self._writers:
            handler = RotatingFileHandler(
                self.folder / f"{name}.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
            )
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self._writers[name] = handler
        return self._writers[name]

    def pump(self, name: str, stream: IO[bytes]) -> threading.Thread:
        """Copies a child's output until it closes."""

        def copy() -> None:
            with contextlib.suppress(ValueError, OSError):
                for raw in stream:
                    self.line(name, raw.decode(errors="replace").rstrip("\r\n"))

        thread = threading.Thread(target=copy, name=f"log-{name}", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        for handler in self._writers.values():
            handler.close()


@dataclass
class Child:
    """A program and the process that runs it now."""

    program: Program
    process: subprocess.Popen[bytes]
    started: float
    delay: float = FIRST_DELAY
    restart_at: float | None = None
    look_at: float = 0.0
    silent: int | None = None
    """Looks since it was ready; None: it never was."""


class Supervisor:
    """Starts and watches programs. All on one thread: Linux ties a child's life to the thread that started it.

    ``grace`` is how long children may take to stop before they are killed.
    """

    def __init__(self, var: Path, logs: Logs, *, grace: float = GRACE_SECONDS) -> None:
        self.var, self.logs, self.grace = var, logs, grace
        self.children: dict[str, Child] = {}
        self.stopping = threading.Event()
        self._janitor = subprocess.Popen(
            [sys.executable, "-m", "config.janitor", str(var)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=child_env(var, {}, marked=False),
        )

    def say(self, text: str) -> None:
        self.logs.line("up", text)

    def start(self, program: Program) -> None:
        self.children[program.name] = Child(program, self._spawn(program), time.monotonic())

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_env(self.var, program.env, marked=program.marked),
            start_new_session=True,  # Ctrl-C reaches only us, and we stop the children in order
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one prctl call, nothing that could deadlock
        )
        assert process.stdout is not None
        self.logs.pump(program.name, process.stdout)
        return process

    def wait_ready(self, names: list[str], *, seconds: float) -> list[str]:
        """Waits until these programs are ready, restarting what dies meanwhile. Returns those that are not."""
        deadline = time.monotonic() + seconds
        waiting = [name for name in names if self.children[name].program.ready is not None]
        while waiting and not self.stopping.is_set() and time.monotonic() < deadline:
            self.tend()
            for name in list(waiting):
                ready = self.children[name].program.ready
                if ready is None or (self.children[name].process.poll() is None and ready()):
                    waiting.remove(name)
            self.stopping.wait(0.2)
        return waiting

    def tend(self) -> None:
        """Starts again what died: after one second, and after twice as long each time it dies soon again."""
        now = time.monotonic()
        for child in self.children.values():
            if child.restart_at is None:
                code = child.process.poll()
                if code is None:
                    self._look(child, now)
                    continue
                _kill_group(child.process.pid)  # a dead parent may leave its forks behind
                child.delay = FIRST_DELAY if now - child.started > STEADY_AFTER else child.delay
                child.restart_at = now + child.delay
                self.say(f"{child.program.name} ended ({_how(code)}); starting it again in {child.delay:.0f} s")
                child.delay = min(child.delay * 2, LONGEST_DELAY)
            elif now >= child.restart_at:
                child.process, child.started, child.restart_at = self._spawn(child.program), now, None
                child.silent = None

    def _look(self, child: Child, now: float) -> None:
        """Kills what lives and does nothing any more: it is then started again as whatever died. Not while it starts,
        since models take their time to load."""
        ready = child.program.ready
        if not child.program.watched or ready is None or now < child.look_at:
            return
        child.look_at = now + LOOK_EVERY
        if ready():
            child.silent = 0
        elif child.silent is not None:
            child.silent += 1
            if child.silent >= MOST_SILENT:
                self.say(f"{child.program.name} has not answered for {child.silent * LOOK_EVERY:.0f} s; it is killed")
                _kill_group(child.process.pid)

    def watch(self) -> None:
        """Until somebody sets ``stopping``."""
        while not self.stopping.wait(0.5):
            self.tend()

    def stop(self) -> None:
        """Stops every child and whatever they started; the database last. Safe to call twice."""
        self.stopping.set()
        database = self.children.pop(DATABASE, None)
        self._stop_all(list(self.children.values()), self.grace)
        sweep(self.var, grace=2.0)
        if database is not None:
            self._stop_all([database], DATABASE_GRACE)
        self.children.clear()
        if self._janitor.poll() is None and self._janitor.stdin is not None:
            with contextlib.suppress(OSError):
                self._janitor.stdin.write(DONE)
                self._janitor.stdin.close()
            self._janitor.wait(5)

    @staticmethod
    def _stop_all(children: list[Child], grace: float) -> None:
        for child in children:
            _send(child.process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            _kill_group(child.process.pid)
            child.process.wait()


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def _kill_group(pid: int) -> None:
    """What is left of a child's session. The child led it, so its number is the group's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _how(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

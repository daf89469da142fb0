"""The supervisor with tiny children: order, restart, and above all that nothing is ever left behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from config import supervisor as module
from config.processes import MARKER, Program, child_env, marked, sweep
from config.supervisor import AlreadyRunning, Lock, Logs, Supervisor

SLEEP = [sys.executable, "-c", "import time; print('hello', flush=True); time.sleep(600)"]
# A child that forks one who ignores SIGTERM, and one that leaves the group for a session of its own.
FAMILY = [
    sys.executable,
    "-c",
    textwrap.dedent("""
        import signal, subprocess, sys, time
        ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", ignore])
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        print("family", flush=True)
        time.sleep(600)
    """),
]


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    sweep(tmp_path, grace=0.1)


@pytest.fixture
def running(var: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(var, Logs(var / "log", io.StringIO()), grace=1.0)
    yield supervisor
    supervisor.stop()


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_stopping_leaves_nothing_behind_not_even_who_detached_or_ignores(running: Supervisor, var: Path) -> None:
    running.start(Program("family", FAMILY))
    until(lambda: len(marked(var)) == 3)
    began = time.monotonic()
    running.stop()
    assert marked(var) == []
    assert time.monotonic() - began < 8


def test_a_child_that_hangs_is_started_again_but_not_while_it_starts(
    running: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    well: list[bool] = []
    running.start(Program("hung", SLEEP, ready=lambda: bool(well), watched=True))
    running.start(Program("other", SLEEP, ready=lambda: False))
    child, other = running.children["hung"], running.children["other"].process
    first, child.delay = child.process, 0.1
    for _ in range(3 * module.MOST_SILENT):
        running.tend()
    assert first.poll() is None
    well.append(True)
    running.tend()
    well.clear()
    os.kill(first.pid, signal.SIGSTOP)
    for _ in range(module.MOST_SILENT):
        assert child.silent is not None
        assert child.silent < module.MOST_SILENT
        running.tend()
    until(lambda: running.tend() or child.process.pid != first.pid)
    assert child.silent is None
    assert running.children["other"].process is other


def test_a_child_that_dies_is_started_again_and_its_forks_go_with_it(
    running: Supervisor, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.1)
    running.start(Program("family", FAMILY))
    running.children["family"].delay = 0.1
    until(lambda: len(marked(var)) == 3)
    first = running.children["family"].process
    first.kill()
    first.wait()
    until(lambda: running.tend() or running.children["family"].process.pid != first.pid)
    until(lambda: len(marked(var)) == 4)  # the detached one lives on, as a training run does; its parent is new


def test_a_child_that_keeps_dying_is_started_less_and_less_often(running: Supervisor) -> None:
    running.start(Program("broken", [sys.executable, "-c", "raise SystemExit(3)"]))
    child = running.children["broken"]
    delays = []
    for _ in range(3):
        until(lambda: running.tend() or child.restart_at is not None)
        delays.append(child.delay)
        child.restart_at = 0.0
        running.tend()
    assert delays == [2.0, 4.0, 8.0]


def test_logs_carry_the_name_on_the_console_and_go_to_a_file(var: Path) -> None:
    console = io.StringIO()
    supervisor = Supervisor(var, Logs(var / "log", console))
    try:
        supervisor.start(Program("greeter", SLEEP))
        until(lambda: "hello" in console.getvalue())
    finally:
        supervisor.stop()
    assert "greeter | hello" in console.getvalue()
    assert "hello" in (var / "log" / "greeter.log").read_text(encoding="utf-8")


def test_waiting_names_what_is_not_ready(running: Supervisor) -> None:
    running.start(Program("quick", SLEEP, ready=lambda: True))
    running.start(Program("never", SLEEP, ready=lambda: False))
    assert running.wait_ready(["quick", "never"], seconds=0.5) == ["never"]


def test_the_environment_of_a_child_finds_our_packages_from_any_folder(var: Path) -> None:
    code = "import config, serving, os; print(os.environ['RATCHET_VAR'])"
    env = child_env(var, {"EXTRA": "1"})
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(var)
    assert env[MARKER] == str(var)
    assert MARKER not in child_env(var, {}, marked=False)


def test_a_second_supervisor_is_told_about_the_first(var: Path) -> None:
    first, second = Lock(var), Lock(var)
    first.acquire()
    first.write({"pid": 4711, "url": "http://127.0.0.1:8000"})
    with pytest.raises(AlreadyRunning, match=r"already running at http://127.0.0.1:8000 \(process 4711\)"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_when_the_supervisor_is_killed_its_children_end_all_the_same(var: Path) -> None:
    script = textwrap.dedent(f"""
        import pathlib, time
        from config.processes import Program
        from config.supervisor import Logs, Supervisor
        var = pathlib.Path({str(var)!r})
        supervisor = Supervisor(var, Logs(var / "log", None))
        supervisor.start(Program("family", {FAMILY!r}))
        while True:
            time.sleep(1)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    until(lambda: len(marked(var)) == 3, seconds=30)
    parent.kill()
    parent.wait()
    until(lambda: not marked(var), seconds=20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_starts_migrates_and_stops_without_a_trace(number: signal.Signals, request: pytest.FixtureRequest) -> None:
    """The real command with the real database, without the parts that take long to load."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-up-"))
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    var = folder / "var"
    env = {**os.environ, "RATCHET_VAR": str(var), "PYTHONUNBUFFERED": "1"}
    env.pop("DATABASE_URL", None)
    root = Path(__file__).resolve().parent.parent.parent
    command = [sys.executable, str(root / "manage.py"), "up", "--only", "db,web,worker"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "up      | ready" in line:
                break
        text = "".join(lines)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 4, text
        again = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(40) == 0, text + rest
    assert "Ratchet is running at http://127.0.0.1:" in text
    assert "Admin login: admin / " in text
    assert again.returncode != 0
    assert "already running" in again.stderr
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert marked(var) == []


def test_attached_it_ends_with_whoever_started_it() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ratchet-up-"))
    folder.chmod(0o755)
    env = {**os.environ, "RATCHET_VAR": str(folder / "var")}
    env.pop("DATABASE_URL", None)
    command = [sys.executable, str(Path(__file__).resolve().parent.parent.parent / "manage.py"), "up"]
    with subprocess.Popen(
        [*command, "--only", "db", "--attached", "--quiet"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert b"Ratchet is running" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(40) == 0
    shutil.rmtree(folder)

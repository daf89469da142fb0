"""Starts, watches and stops the embedded PostgreSQL (`config.postgres` says where it lives and as whom)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil

from config.env import envsecret
from config.postgres import (
    DATABASE,
    OLDER,
    PASSWORD_NAME,
    PORT,
    ROLE,
    Account,
    Place,
    PostgresError,
    binaries,
    place,
    prepare,
)
from config.warming import warm_beside

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    # Indexes are in memory, or on a disk without an arm: with the default of 4 an exact search of half a million chunks
    # reads the whole table rather than the index that holds their vectors.
    "random_page_cost": "1.1",
    # Two filters that are frequent each: with the default of 4 MB what one of them finds among a million turns is kept
    # by pages, and every page is then read to see which of its turns it was.
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    "max_parallel_maintenance_workers": "0",
    "checkpoint_timeout": "15min",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_checkpoints": "off",
}
# A lost test database is made again: durability would only cost time.
UNSAFE_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}

BUFFERS = (2**28, 2**32)
"""Bytes of ``shared_buffers``, least and most. Memory is only taken when something is read into it."""
BUFFERS_SHARE = 8
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands, of the second version of control groups and of the first."""

_PR_SET_PDEATHSIG = 1


def start(
    var: Path, password: str, *, durable: bool = True, output: IO[Any] | int | None = None
) -> tuple[subprocess.Popen[bytes], Place]:
    """Starts the server of the state folder ``var`` as our child, and makes its cluster when there is none.

    Returns at once; `wait_ready` waits until it answers. SIGINT to the child stops it cleanly and fast; on Linux the
    child gets that signal by itself when we die.

    Raises:
        PostgresError: not installed, already running, disk full, …
    """
    spot, user = prepare(var)
    programs = binaries(user)
    _wait_for_leaving(spot)
    _refuse_if_alive(spot)
    with (spot.home / "making.lock").open("a") as handle:
        # Of two commands that begin at once in a new folder, the second would delete what the first has half made. The
        # kernel lets go of the lock with the process.
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (spot.data / "PG_VERSION").exists():
            _make_cluster(spot, user, programs, password, durable=durable)
    settings = {**SETTINGS, "shared_buffers": f"{buffers() // 2**20}MB", **({} if durable else UNSAFE_SETTINGS)}
    command = [str(programs / "postgres"), "-D", str(spot.data), "-k", str(spot.run), "-p", str(PORT)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - one prctl call, nothing that could deadlock
        cwd=spot.home,
        env=_environment(),
        **_as(user),
    )
    return child, spot


def buffers() -> int:
    """Bytes for ``shared_buffers``: an eighth of what the machine, or the container, has. A page of a vector index that
    is not among them costs as much to copy from the system's cache as a dozen comparisons."""
    memory = psutil.virtual_memory().total
    for limit in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no container, or one that says "max"
            memory = min(memory, int(limit.read_text()))
    return min(max(memory // BUFFERS_SHARE, BUFFERS[0]), BUFFERS[1])


def _environment() -> dict[str, str]:
    """Nothing of ours: keys and tokens in our environment are not the server's business."""
    return {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TZ", "TMPDIR")}


def _as(user: Account | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """For ``preexec_fn``: the kernel sends the child this signal when its parent dies. Linux only; else None."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork: the child must not import anything

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)

    return ask_kernel


def _make_cluster(spot: Place, user: Account | None, programs: Path, password: str, *, durable: bool) -> None:
    """initdb into a folder beside, then a rename: a cluster that was interrupted half-way is never taken for one."""
    fresh = spot.home / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(spot.data, ignore_errors=True)  # no PG_VERSION: nothing was ever stored in it
    locale = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
    command = [str(programs / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=scram-sha-256"]
    command += ["--encoding=UTF8", f"--locale={locale}", "--no-instructions", *_collation(programs)]
    if not durable:
        command.append("--no-sync")
    # initdb insists on a password for its superuser; it gets one that nobody keeps.
    pwfile = spot.home / "pw"
    pwfile.touch(mode=0o600)
    pwfile.write_text(os.urandom(24).hex(), encoding="utf-8")
    if user is not None:
        os.chown(pwfile, user.uid, user.gid)
    try:
        _run([*command, f"--pwfile={pwfile}"], user, spot.home)
    finally:
        pwfile.unlink()
    # Our role is no superuser, and only a superuser may create the extension: the template brings it along.
    quoted = password.replace("'", "''")
    single = [str(programs / "postgres"), "--single", "-D", str(fresh), "template1"]
    statements = (
        "CREATE EXTENSION vector;\n"
        f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{quoted}';\n"
        f"CREATE DATABASE {DATABASE} OWNER {ROLE};\n"
    )
    _run(single, user, spot.home, stdin=statements)
    fresh.rename(spot.data)


def _collation(programs: Path) -> list[str]:
    """PostgreSQL's own tables of letters instead of the system's: the same order and the same words, but a third of the
    time to fold case, which is a sixth of making a chunk's words and most of a search in a list. From 17 on."""
    return [] if programs.parent.name == OLDER else ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]


def _run(command: list[str], user: Account | None, folder: Path, *, stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin.encode(), capture_output=True, cwd=folder, check=False, **_as(user))
    text = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode == 0 and "ERROR:" not in text:
        return
    if "No space left on device" in text:
        raise PostgresError(f"The disk is full: no room for the database in {folder}. Free some space.")
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no message")
    raise PostgresError(f"{Path(command[0]).name} failed in {folder}: {last.strip()}")


def running_pid(spot: Place) -> int | None:
    """PID of the live server of this place. A zombie, and another program that got the number since, are not it."""
    try:
        pid = int((spot.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        ours = Path(process.cwd()).resolve() == spot.data.resolve()  # every server works inside its cluster
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if ours else None


def _wait_for_leaving(spot: Place, *, seconds: float = 30) -> None:
    """A server whose starter was killed shuts down by itself: its successor waits until it has."""
    deadline = time.monotonic() + seconds
    while running_pid(spot) is not None and _is_stopping(spot) and time.monotonic() < deadline:
        time.sleep(0.1)


def _is_stopping(spot: Place) -> bool:
    """What the server itself says, on the last line of its file."""
    try:
        return (spot.data / "postmaster.pid").read_text(encoding="utf-8").split()[-1:] == ["stopping"]
    except OSError:
        return False


def _refuse_if_alive(spot: Place) -> None:
    """Clears a stale postmaster.pid: PostgreSQL itself would believe any live process of that number, and a restarted
    container gives out the same low numbers again. The file of a live server is never touched: it would stop."""
    pid = running_pid(spot)
    if pid is not None:
        raise PostgresError(f"PostgreSQL is already running on {spot.data} (process {pid}).")
    (spot.data / "postmaster.pid").unlink(missing_ok=True)


def wait_ready(spot: Place, password: str, child: subprocess.Popen[bytes], *, seconds: float = 60) -> None:
    """Until the server takes a connection.

    Raises:
        PostgresError: it died, or did not answer in time.
    """
    import psycopg

    deadline = time.monotonic() + seconds
    while True:
        try:
            psycopg.connect(
                host=str(spot.run), port=PORT, user=ROLE, password=password, dbname=DATABASE, connect_timeout=5
            ).close()
            return
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise PostgresError(
                    "The password in var/secrets is not that of the database in var/postgres. "
                    "Restore the secrets, or remove both folders to start afresh."
                ) from error
            if child.poll() is not None:
                raise PostgresError(
                    f"PostgreSQL stopped while starting (exit {child.returncode}); its last lines above say why."
                ) from error
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL did not answer within {seconds:.0f} s.") from error
        time.sleep(0.1)


def stop_stray(var: Path, *, seconds: float = 15) -> bool:
    """Stops a server of this state folder that outlived whoever started it. True when there was one."""
    pid = running_pid(place(var))
    if pid is None:
        return False
    server = psutil.Process(pid)
    for number in (signal.SIGINT, signal.SIGQUIT):
        try:
            server.send_signal(number)
            server.wait(seconds)
        except psutil.TimeoutExpired:
            continue
        except psutil.NoSuchProcess:
            break
        break
    return True


def stop(child: subprocess.Popen[bytes], *, seconds: float = 15) -> None:
    """Fast shutdown: running statements are cancelled, everything committed is on disk."""
    for number, patience in ((signal.SIGINT, seconds), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        if child.poll() is not None:
            return
        child.send_signal(number)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def serve(var: Path) -> int:
    """Runs the server in the foreground until SIGINT or SIGTERM, or until whoever supervises us dies.

    Returns its exit status; 1 with one sentence on standard error when it cannot run.
    """
    password = envsecret(PASSWORD_NAME, folder=var / "secrets")
    asked: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        for child in children:
            child.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask)
    try:
        child, spot = start(var, password)
        children.append(child)
        if asked:
            child.send_signal(signal.SIGINT)
        wait_ready(spot, password, child)
        warm_beside(spot, password, most=2 * buffers(), is_over=lambda: bool(asked) or child.returncode is not None)
    except PostgresError as error:
        for child in children:
            stop(child)
        if asked:
            return 0
        sys.stderr.write(f"{error}\n")
        return 1
    code = child.wait()
    return 0 if asked else code or 1


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))

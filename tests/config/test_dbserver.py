"""The embedded server is killed, started again, doubled and misled; nothing that was committed may be lost."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import psycopg
import pytest

from config import dbserver, postgres
from config.dbserver import running_pid, start, stop, stop_stray, wait_ready
from config.postgres import Place, PostgresError, place
from config.warming import index_files, read_files, warm_beside

PASSWORD = "it's a password"


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """pytest closes the folders above its own to other users, and as root the server is one."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-dbserver-"))
    folder.chmod(0o755)
    yield folder
    stop_stray(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def var() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


def connect(spot: Place) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=str(spot.run), port=postgres.PORT, user=postgres.ROLE, password=PASSWORD, dbname=postgres.DATABASE
    )


def run(var: Path) -> tuple[subprocess.Popen[bytes], Place]:
    child, spot = start(var, PASSWORD, output=subprocess.DEVNULL)
    wait_ready(spot, PASSWORD, child)
    return child, spot


@pytest.mark.parametrize(
    ("machine", "container", "megabytes"),
    [
        (2**30, "max", 256),
        (16 * 2**30, "max", 2048),
        (16 * 2**30, str(4 * 2**30), 512),
        (2**38, "", 4096),
        (16 * 2**30, str(2**63 - 4096), 2048),
    ],
)
@pytest.mark.parametrize("version", [2, 1])
def test_the_server_keeps_an_eighth_of_the_memory_for_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: int, container: str, megabytes: int, version: int
) -> None:
    limits = (tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes")
    limits[2 - version].write_text(f"{container}\n")
    monkeypatch.setattr(dbserver, "_CGROUPS", limits)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=machine))
    assert dbserver.buffers() == megabytes * 2**20


def test_it_is_started_with_them(var: Path) -> None:
    child, spot = run(var)
    with connect(spot) as connection:
        shown = connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    stop(child)
    assert shown is not None
    assert shown[0] == dbserver.buffers() // 2**20 * 2**20


def test_vector_indexes_are_read_beside_it_and_no_more_than_is_allowed(var: Path) -> None:
    child, spot = run(var)
    with connect(spot) as raw:
        raw.execute("CREATE TABLE seen (v vector(3))")
        raw.execute("INSERT INTO seen SELECT ARRAY[n, n % 7, n % 11]::vector FROM generate_series(1, 2000) n")
        raw.execute("CREATE INDEX seen_v ON seen USING hnsw (v vector_l2_ops)")
        raw.commit()
        size = raw.execute("SELECT pg_relation_size('seen_v')").fetchone()
        files = index_files(raw, spot.data)
    assert size is not None
    assert [file.is_file() for file in files] == [True]
    gone = spot.data / "gone"
    assert read_files([gone, *files], most=2**30, is_over=lambda: False) == size[0] > 100_000
    assert read_files(files, most=5000, is_over=lambda: False) == 5000
    assert read_files(files, most=2**30, is_over=lambda: True) == 0
    warm_beside(spot, PASSWORD, most=2**30, is_over=lambda: False).join(30)
    assert running_pid(spot) == child.pid
    stop(child)


def test_without_a_server_one_sentence_says_that_nothing_was_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warm_beside(place(folder), PASSWORD, most=2**30, is_over=lambda: False).join(30)
    assert capsys.readouterr().err == "The vector indexes were not read ahead (OperationalError).\n"


def test_committed_rows_survive_a_kill_and_the_stale_pid_file(var: Path) -> None:
    child, spot = run(var)
    with connect(spot) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    child.kill()
    child.wait()
    assert (spot.data / "postmaster.pid").exists()
    assert running_pid(spot) is None
    child, spot = run(var)
    with connect(spot) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    stop(child)
    assert child.returncode == 0


def test_a_pid_file_that_names_another_living_process_is_stale(var: Path) -> None:
    spot = place(var)
    (spot.data / "postmaster.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
    child, spot = run(var)
    stop(child)
    assert child.returncode == 0


def test_a_second_server_is_refused_and_the_first_keeps_its_pid_file(var: Path) -> None:
    child, spot = run(var)
    with pytest.raises(PostgresError, match="already running"):
        start(var, PASSWORD)
    assert running_pid(spot) == child.pid
    connect(spot).close()
    stop(child)


def test_vector_is_there_and_our_role_is_no_superuser(var: Path) -> None:
    child, spot = run(var)
    with connect(spot) as connection:
        assert connection.execute("SELECT '[1,2]'::halfvec(2) <=> '[1,2]'").fetchone() == (0.0,)
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    stop(child)


def test_case_is_folded_by_the_servers_own_tables_and_order_is_by_code_point(var: Path) -> None:
    child, spot = run(var)
    with connect(spot) as connection:
        provider = connection.execute("SELECT datlocprovider FROM pg_database WHERE datname = current_database()")
        assert provider.fetchone() == ("b",)
        folded = connection.execute("SELECT upper('straße é ы'), to_tsvector('english', 'ÄRGER Fees') @@ 'ärger & fee'")
        assert folded.fetchone() == ("STRAßE É Ы", True)
        order = connection.execute("SELECT string_agg(w, ' ' ORDER BY w) FROM unnest(ARRAY['b', 'ä', 'B', 'a']) AS w")
        assert order.fetchone() == ("B a b ä",)
    stop(child)


def test_a_wrong_password_is_refused_and_explained(var: Path) -> None:
    child, spot = start(var, "another", output=subprocess.DEVNULL)
    with pytest.raises(PostgresError, match="password in var/secrets"):
        wait_ready(spot, "another", child)
    stop(child)


def test_nobody_else_gets_near_the_data(var: Path) -> None:
    spot = place(var)
    for folder in (spot.home, spot.data, spot.run):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0, folder


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of their parent's death on Linux only")
def test_the_server_stops_when_whoever_started_it_is_killed(var: Path) -> None:
    code = "import sys, pathlib; from config import dbserver; sys.exit(dbserver.serve(pathlib.Path(sys.argv[1])))"
    env = {**os.environ, "DATABASE_PASSWORD": PASSWORD}
    parent = subprocess.Popen([sys.executable, "-c", code, str(var)], stderr=subprocess.DEVNULL, env=env)
    spot = place(var)
    deadline = time.monotonic() + 30
    while running_pid(spot) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = running_pid(spot)
    assert pid is not None
    server = psutil.Process(pid)
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([server], timeout=20)[1] == []


def test_a_successor_waits_for_a_server_that_is_leaving(var: Path) -> None:
    child, spot = run(var)
    held = connect(spot)
    row = held.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    busy = psutil.Process(int(str(row[0])))
    busy.suspend()  # the server waits for it
    child.send_signal(signal.SIGINT)
    until(lambda: dbserver._is_stopping(spot))
    threading.Timer(1.0, busy.resume).start()
    second, _ = start(var, PASSWORD, output=subprocess.DEVNULL)
    held.close()
    assert child.wait(20) == 0
    wait_ready(spot, PASSWORD, second)
    stop(second)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_serving_ends_cleanly_on_sigterm(var: Path) -> None:
    env = {**os.environ, "DATABASE_PASSWORD": PASSWORD}
    server = subprocess.Popen([sys.executable, "-m", "config.dbserver", str(var)], stderr=subprocess.DEVNULL, env=env)
    deadline = time.monotonic() + 30
    while not place(var).socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert running_pid(place(var)) is None


def test_an_interrupted_initdb_is_begun_again(folder: Path) -> None:
    (folder / "postgres" / "data.new").mkdir(parents=True)
    (folder / "postgres" / "data.new" / "half").touch()
    child, _ = start(folder, PASSWORD, durable=False, output=subprocess.DEVNULL)
    wait_ready(place(folder), PASSWORD, child)
    stop(child)


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    spot = place(tmp_path / ("x" * 90))
    assert len(os.fsencode(spot.socket)) <= 100


def test_without_the_wheel_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres, "_WHEEL", "no_such_package")
    with pytest.raises(PostgresError, match="Set DATABASE_URL, or run"):
        dbserver.start(tmp_path, PASSWORD)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_below_a_closed_folder_the_data_goes_where_its_user_can_reach_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_SYSTEM_DATA", folder / "system")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    before = stat.S_IMODE(closed.stat().st_mode)
    child, spot = start(closed / "var", PASSWORD, durable=False, output=subprocess.DEVNULL)
    wait_ready(spot, PASSWORD, child)
    stop(child)
    assert spot.home.parent == folder / "system"
    assert stat.S_IMODE(closed.stat().st_mode) == before
    assert place(closed / "var") == spot


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_binaries_in_a_closed_folder_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_SYSTEM_DATA", tmp_path / "system")
    monkeypatch.setattr(postgres, "_can_pass", lambda folder, user: False)
    user = postgres.account()
    first = postgres.binaries(user)
    assert first.is_relative_to(tmp_path / "system")
    assert subprocess.run([first / "postgres", "--version"], capture_output=True, check=True).stdout.startswith(
        b"postgres"
    )
    assert postgres.binaries(user) == first

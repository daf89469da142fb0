"""What waits on disk: it survives crashes, is shared by processes, is bounded, and goes to nobody else."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from tests.sdk.conftest import House, until
from tests.sdk.test_away import log

WRITER = """
import sys, time
from ratchet_client import Client
url, key, folder, name, count = sys.argv[1:]
client = Client(url, key, spool=folder, flush_seconds=0.05, retry_seconds=(0.05, 0.2))
for number in range(int(count)):
    client.log_turn(f"Question {number}?", "Yes.", id=f"{name}-{number}")
print("flushed", client.flush(), flush=True)
sys.stdin.readline()
"""


def names(prefix: str, count: int) -> set[str]:
    return {f"{prefix}-{number}" for number in range(count)}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def close_at_once(house: House) -> None:
    """Whose last try is over when this returns: it may spool what it met."""
    house.clients[0].close(0.1)
    until(lambda: not any(thread.name == "ratchet-client" for thread in threading.enumerate()))


def test_items_go_to_disk_and_from_there_to_the_server(house: House, tmp_path: Path) -> None:
    house.door.shut()
    client = house.client(spool=tmp_path / "spool")
    log(client, 20)
    assert client.flush()
    assert client.stats["spooled"] == 20
    assert client.stats["queued"] == 0
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)}
    assert modes == {0o600}
    assert stat.S_IMODE(files(tmp_path)[0].parent.stat().st_mode) == 0o700
    house.door.open()
    until(lambda: not files(tmp_path))
    assert house.received() == names("t", 20)
    assert client.stats["created"] == 20


def test_updates_wait_on_disk_and_do_not_undo_what_came_after_them(house: House, tmp_path: Path) -> None:
    client = house.client(spool=tmp_path)
    name = client.log_turn("Question?", "Yes.")
    assert client.flush()
    house.door.shut()
    client.update(name, outcome="escalated", tags=["late"])
    assert client.flush()
    (path,) = files(tmp_path)
    assert json.loads(path.read_text())["turn"] == name
    house.door.open()
    other = house.client()
    other.update(name, outcome="resolved")
    assert other.flush()
    until(lambda: not files(tmp_path))
    turn = house.turns()[name]
    assert (turn.outcome, turn.tags) == ("resolved", ["late"])
    assert house.problems == []


def test_a_crash_loses_nothing_that_is_on_disk(house: House, tmp_path: Path) -> None:
    house.door.shut()
    process = house.program(WRITER, tmp_path, "a", 30)
    assert process.stdout is not None
    assert process.stdout.readline() == "flushed True\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    house.door.open()
    house.client(spool=tmp_path)  # the next process, before it logs anything
    until(lambda: not files(tmp_path))
    assert house.received() == names("a", 30)


def test_several_processes_share_a_folder(house: House, tmp_path: Path) -> None:
    house.door.shut()
    processes = [house.program(WRITER, tmp_path, name, 20) for name in "abc"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed True\n"
    house.door.open()
    until(lambda: not files(tmp_path), 30)
    for process in processes:
        _, error = process.communicate("end\n", timeout=20)
        assert (process.returncode, error.count("Traceback")) == (0, 0)
    assert house.received() == names("a", 20) | names("b", 20) | names("c", 20)
    assert len(house.turns()) == 60


def test_half_written_files_are_read_as_far_as_they_go_and_told(house: House, tmp_path: Path) -> None:
    house.door.shut()
    log(house.client(spool=tmp_path), 4)
    close_at_once(house)
    paths = sorted(files(tmp_path))  # two where its last try met a part of them
    path, lines = paths[0], [line for each in paths for line in each.read_bytes().splitlines(keepends=True)]
    whole = path.with_name(path.name + ".part")  # a crash before the name was given
    whole.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    for each in paths:
        each.unlink()
    young = path.with_name("2" + path.name[1:] + ".part")  # perhaps it is just being written
    young.write_bytes(lines[0][:10])
    garbage = path.with_name("1" + path.name[1:])
    garbage.write_bytes(b"\x00\xff\n[1]\n" + b"[" * 100_000 + b"\n")
    os.utime(whole, (time.time() - 100,) * 2)
    house.door.open()
    client = house.client(spool=tmp_path)
    until(lambda: client.stats["damaged"] == 4)
    until(lambda: files(tmp_path) == [young])
    assert house.received() == names("t", 3)
    client.close()
    assert {(problem.kind, len(problem.ids)) for problem in house.problems} == {("damaged", 0)}
    assert sum(problem.count for problem in house.problems) == 4


def test_the_spool_is_bounded_and_then_memory_is(house: House, tmp_path: Path) -> None:
    house.door.shut()
    client = house.client(spool=tmp_path, spool_bytes=2_000, queue_items=5)
    for number in range(30):
        client.log_turn(f"Question {number}?", "Yes.", id=f"t-{number}")
        time.sleep(0.07)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 2_000
    stats = client.stats
    assert stats["queued"] == 5
    assert stats["spooled"] + 5 + stats["lost"] == 30
    assert stats["lost"] > 0
    house.door.open()
    assert client.flush()
    until(lambda: not files(tmp_path))
    assert len(house.received()) == 30 - client.stats["lost"]


def test_a_folder_that_cannot_be_written_is_said_and_memory_takes_over(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    house.door.shut()
    client = house.client(spool=tmp_path / "file")
    log(client, 3)
    until(lambda: "The spool cannot be written" in caplog.text)
    house.door.open()
    assert client.flush()
    assert house.received() == names("t", 3)


def test_what_is_too_old_is_given_up(house: House, tmp_path: Path) -> None:
    house.door.shut()
    log(house.client(spool=tmp_path), 3)
    close_at_once(house)
    for path in files(tmp_path):
        os.utime(path, (time.time() - 8 * 86400,) * 2)
    house.door.open()
    client = house.client(spool=tmp_path)
    until(lambda: house.problems)
    assert (house.problems[0].reason, client.stats["lost"]) == ("too old in the spool", 3)
    until(lambda: not files(tmp_path))
    assert house.received() == set()


def test_items_are_never_sent_with_another_key(house: House, tmp_path: Path) -> None:
    house.door.shut()
    log(house.client(spool=tmp_path), 3)
    close_at_once(house)
    house.door.open()
    other = house.client(spool=tmp_path, key=house.other_secret)
    other.log_turn("Question?", "Yes.")
    assert other.flush()
    time.sleep(0.5)
    assert other.stats["created"] == 1
    assert len(files(tmp_path)) == 1


def test_one_bad_file_holds_up_no_other(house: House, tmp_path: Path) -> None:
    house.door.shut()
    client = house.client(spool=tmp_path)
    client.log_turn("Is this poison?", "Yes.", id="bad")
    assert client.flush()
    log(client, 3)
    assert client.flush()
    house.door.chokes_on = "poison"
    house.door.open()
    until(lambda: house.received() == names("t", 3))
    until(lambda: len(files(tmp_path)) == 1)
    (path,) = files(tmp_path)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["bad"]


def test_a_slow_server_sends_the_rest_to_disk(house: House, tmp_path: Path) -> None:
    house.door.delay = 0.3
    client = house.client(spool=tmp_path, queue_items=100, flush_items=10)
    for number in range(250):
        client.log_turn(f"Question {number}?", "Yes.", id=f"t-{number}")
        time.sleep(0.02)
    until(lambda: len(house.received()) == 250, 60)
    assert client.stats["spooled"] > 0
    assert client.stats["lost"] == 0


def test_closing_puts_on_disk_what_is_on_its_way(house: House, tmp_path: Path) -> None:
    house.door.delay = 3
    client = house.client(spool=tmp_path)
    log(client, 3)
    client.feedback("t-0", "thumb", value=1)
    until(lambda: house.door.seen)
    client.close(0.4)
    assert client.stats["lost"] == 0
    house.door.delay = 0
    until(house.received)
    again = house.client(spool=tmp_path)
    until(lambda: not files(tmp_path))
    assert house.received() == names("t", 3)
    assert len(house.turns()) == 3
    assert again.stats["lost"] == 0

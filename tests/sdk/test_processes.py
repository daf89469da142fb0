"""The end of a process, and forks of it."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest

from tests.sdk.conftest import House

START = """
import os, sys, signal, threading, time
from ratchet_client import Client
url, key, *rest = sys.argv[1:]
"""


def run(house: House, code: str, *arguments: object) -> str:
    process = house.program(START + code, *arguments)
    said, error = process.communicate(timeout=40)
    assert (process.returncode, error) == (0, ""), error
    return said


def test_a_program_that_just_ends_has_sent_what_it_logged(house: House) -> None:
    run(house, "Client(url, key, flush_seconds=60).log_turn('Why?', 'So.', id='t-1')")
    assert house.received() == {"t-1"}


def test_logging_at_the_very_end_is_sent_too(house: House) -> None:
    code = """
import atexit
client = Client(url, key, flush_seconds=60)
class Late:
    def __del__(self):
        client.log_turn('Why?', 'So.', id='too-late')
late = Late()
import ratchet_client.background
atexit.register(lambda: client.log_turn('Why?', 'So.', id='t-2'))
"""
    run(house, "import logging; logging.disable()\n" + code)
    assert house.received() == {"t-2"}


def test_a_program_ends_soon_when_the_server_is_away(house: House, tmp_path: Path) -> None:
    house.door.shut()
    began = time.monotonic()
    code = "Client(url, key, spool=rest[0], flush_seconds=60).log_turn('Why?', 'So.', id='t-1')"
    run(house, "import logging; logging.disable()\n" + code, tmp_path)
    assert time.monotonic() - began < 10
    house.door.open()
    run(house, "client = Client(url, key, spool=rest[0])\ntime.sleep(3)", tmp_path)
    assert house.received() == {"t-1"}


def test_the_end_is_in_time_when_the_server_hangs(house: House) -> None:
    house.door.delay = 30
    began = time.monotonic()
    code = "Client(url, key, close_seconds=1, flush_seconds=60).log_turn('Why?', 'So.', id='t-1')"
    run(house, "import logging; logging.disable()\n" + code)
    assert time.monotonic() - began < 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_children_of_a_fork_log_each_what_is_theirs(house: House) -> None:
    code = """
client = Client(url, key, flush_seconds=0.2)
client.log_turn('Why?', 'So.', id='before')       # queued by the parent when it forks
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        assert client.stats['queued'] == 0
        client.log_turn('Why?', 'So.', id=f'child-{number}')
        sys.exit()                                 # its own atexit sends
    children.append(child)
client.log_turn('Why?', 'So.', id='parent')
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert client.flush()
assert client.stats['created'] == 2, client.stats
"""
    run(house, code)
    assert house.received() == {"before", "parent", "child-0", "child-1", "child-2"}
    assert sum(len(request.items) for request in house.door.seen) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_while_threads_log_do_not_hang(house: House, tmp_path: Path) -> None:
    code = """
client = Client(url, key, flush_seconds=0.01, spool=rest[0])
stop = threading.Event()
def chat():
    while not stop.is_set():
        client.log_turn('Why?', 'So.')
        time.sleep(0.001)
threads = [threading.Thread(target=chat) for _ in range(4)]
for thread in threads:
    thread.start()
for number in range(15):
    child = os.fork()
    if child == 0:
        client.log_turn('Why?', 'So.', id=f'child-{number}')
        done = client.flush(20)
        os._exit(0 if done else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
client.close(20)
assert client.stats['lost'] == 0, client.stats
"""
    run(house, code, tmp_path)
    assert {f"child-{number}" for number in range(15)} <= house.received()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no signals")
def test_a_signal_handler_may_log(house: House) -> None:
    code = """
client = Client(url, key, flush_seconds=0.05)
count = 0
def handler(*_):
    global count
    count += 1
    client.log_turn('Why?', 'So.', id=f'signal-{count}')
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for number in range(2000):
    client.log_turn('Why?', 'So.', id=f't-{number}')
signal.setitimer(signal.ITIMER_REAL, 0)
client.close(20)
assert client.stats['created'] == 2000 + count, (client.stats, count)
assert count > 5
"""
    run(house, code)


def test_no_call_of_the_host_raises_or_waits(house: House) -> None:
    """Whatever is handed in, with the server away and the queue full."""
    house.door.shut()
    client = house.client(queue_items=3)
    odd = [None, 3, b"bytes", object(), "x" * 10_000_000, {"a": object()}, [float("nan")], {1: {2: 3}}, "\ud800"]
    for question in odd:
        for other in odd:
            began = time.monotonic()
            client.log_turn(question, other, contexts=other, user=other, metadata=other, id=question, time=other)  # type: ignore[arg-type]
            client.feedback(question, other, value=other, text=question)  # type: ignore[arg-type]
            assert time.monotonic() - began < 2
    client.log_turn("Why?", "So.", contexts=itertools.repeat("again"))  # type: ignore[arg-type]
    assert client.stats["logged"] == 2 * len(odd) ** 2 + 1

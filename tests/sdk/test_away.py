"""The server is away, slow, full, or answers oddly: the host does not notice, and nothing arrives twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from ratchet_client import Client
from tests.sdk.conftest import House, until


def log(client: Client, count: int, start: int = 0) -> set[str]:
    """Logs turns; no call may take long."""
    names = set()
    for number in range(start, start + count):
        began = time.monotonic()
        names.add(client.log_turn(f"Question {number}?", "Yes.", id=f"t-{number}"))
        assert time.monotonic() - began < 0.25
    return names


def test_items_wait_in_memory_while_the_server_is_away(house: House) -> None:
    house.door.shut()
    client = house.client()
    names = log(client, 20)
    assert not client.flush(0.5)
    assert client.stats == {"logged": 20, "queued": 20}
    house.door.open()
    assert client.flush()
    assert house.received() == names
    assert house.problems == []


def test_a_full_queue_loses_what_comes_then_and_says_how_much(house: House) -> None:
    house.door.shut()
    client = house.client(queue_items=10)
    log(client, 25)
    house.door.open()
    assert client.flush()
    assert house.received() == {f"t-{number}" for number in range(10)}
    assert client.stats == {"logged": 25, "created": 10, "lost": 15}
    assert sum(problem.count for problem in house.problems) == 15
    assert {problem.reason for problem in house.problems} == {"the queue is full"}


def test_the_queue_is_bounded_in_bytes_too(house: House) -> None:
    house.door.shut()
    client = house.client(queue_bytes=10_000)
    for _ in range(5):
        client.log_turn("Why?", "x" * 3_000)
    assert client.stats["lost"] == 2


def test_a_slow_server_does_not_slow_the_host(house: House) -> None:
    house.door.delay = 0.6
    client = house.client()
    began = time.monotonic()
    names = log(client, 200)
    assert time.monotonic() - began < 2
    assert client.flush()
    assert house.received() == names


def test_a_server_that_never_answers_is_left_after_the_timeout(house: House) -> None:
    house.door.delay = 3
    client = house.client(timeout=0.3)
    log(client, 1)
    until(lambda: len(house.door.seen) >= 2)
    house.door.delay = 0
    assert client.flush()
    assert house.received() == {"t-0"}
    assert client.stats["created"] + client.stats["duplicate"] == 1


def test_an_answer_that_is_lost_on_the_way_doubles_nothing(house: House) -> None:
    house.door.swallows = True
    client = house.client()
    names = log(client, 3)
    until(lambda: len(house.door.seen) >= 2)
    house.door.swallows = False
    assert client.flush()
    assert house.received() == names
    assert client.stats["duplicate"] == 3
    assert len(house.turns()) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept(house: House, as_date: bool) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    house.door.says = (503, {"Retry-After": at if as_date else "2"})
    client = house.client()
    log(client, 1)
    until(lambda: house.door.seen)
    house.door.says = None
    assert client.flush()
    first, second = (request.at for request in house.door.seen)
    assert 1.5 < second - first < 5


def test_without_retry_after_pauses_grow_and_end_soon_after_it_is_back(house: House) -> None:
    house.door.says = (502, {})
    client = house.client(retry_seconds=(0.1, 0.8))
    log(client, 1)
    until(lambda: len(house.door.seen) >= 5)
    pauses = [b.at - a.at for a, b in zip(house.door.seen, house.door.seen[1:], strict=False)]
    assert pauses[3] > pauses[0]
    assert max(pauses) < 2
    house.door.says = None
    assert client.flush(5)


def test_the_rate_limit_of_the_real_server_is_kept(house: House, settings: Any) -> None:
    settings.RATCHET_RATE_LIMIT = "2/sec"
    client = house.client(flush_items=1)
    names = log(client, 6)
    assert client.flush(30)
    assert house.received() == names
    assert client.stats["created"] == 6
    assert len(house.door.seen) > 6  # some came too early, and were told so


def test_one_item_that_the_server_chokes_on_holds_up_nobody(house: House) -> None:
    house.door.chokes_on = "poison"
    client = house.client(retry_seconds=(0.01, 0.05))
    client.log_turn("Is this poison?", "Yes.", id="bad")
    names = log(client, 30)
    until(lambda: house.received() == names)
    until(lambda: client.stats["queued"] == 1)
    house.door.chokes_on = ""
    assert client.flush()


def test_a_proxy_with_a_smaller_limit_gets_smaller_batches(house: House) -> None:
    house.door.says = (413, {})
    client = house.client(flush_seconds=0.3)
    log(client, 8)
    until(lambda: len(house.door.seen) >= 2)
    house.door.says = None
    assert client.flush()
    sizes = [len(request.items) for request in house.door.seen]
    assert sizes[0] > sizes[1]
    assert client.stats["created"] + client.stats["refused"] == 8


def test_a_page_instead_of_an_answer_is_not_an_answer(house: House) -> None:
    house.door.says = (200, {"Content-Type": "text/html"})
    client = house.client()
    log(client, 2)
    until(lambda: len(house.door.seen) >= 2)
    assert client.stats["queued"] == 2
    house.door.says = None
    assert client.flush()


def test_closing_ends_in_time_and_says_what_is_lost(house: House) -> None:
    house.door.delay = 5
    client = house.client()
    log(client, 3)
    client.feedback("t-0", "thumb", value=1)
    began = time.monotonic()
    client.close(0.5)
    assert time.monotonic() - began < 1.5
    assert {problem.reason for problem in house.problems} == {"closed before the server took them"}
    assert client.stats["lost"] == 4
    assert house.problems[0].count == 4

"""The client and the real log API: what is logged arrives, once, and what cannot is told."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from capture.models import Feedback, TurnUpdate
from ratchet_client import AsyncClient, Client, __version__
from tests.sdk.conftest import House, until

QUESTION = "What does leaving early cost?"
ANSWER = "A fixed plan has an exit fee of £35. [1]"


def test_a_turn_with_everything_arrives(house: House) -> None:
    with house.client() as client:
        name = client.log_turn(
            QUESTION,
            ANSWER,
            contexts=[
                {"text": "A fixed plan has an exit fee of £35.", "title": "Leaving", "source": "a.md", "score": 0.8},
                "Tell us 10 days before you move.",
            ],
            conversation="chat-82",
            history=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
            model="our-bot-3",
            latency_ms=840,
            prompt_tokens=120,
            tags=["web"],
            time=datetime(2026, 3, 1, 10, tzinfo=UTC),
            metadata={"shop": "north"},
            user={"id": "u-17", "name": "Ada Example"},
        )
        client.feedback(name, "thumb", value=-1)
        client.feedback(name, "comment", text="Which plans are fixed?")
    turn = house.turns()[name]
    assert (turn.question, turn.response, turn.model) == (QUESTION, ANSWER, "our-bot-3")
    assert [found.passage.text for found in turn.retrievals.order_by("rank")] == [
        "A fixed plan has an exit fee of £35.",
        "Tell us 10 days before you move.",
    ]
    assert turn.client == f"ratchet-client/{__version__}"
    assert turn.metadata["shop"] == "north"
    assert "user" not in turn.metadata
    assert set(Feedback.objects.filter(turn=turn).values_list("kind", flat=True)) == {"thumb", "comment"}
    assert house.door.seen[0].headers["User-Agent"].startswith(f"ratchet-client/{__version__} (python 3")
    assert client.stats == {"logged": 3, "created": 3}
    assert house.problems == []


def test_many_turns_of_many_threads_go_in_batches(house: House) -> None:
    client = house.client(flush_items=50)

    def chat(number: int) -> None:
        for turn in range(60):
            client.log_turn(f"Question {turn}?", "Yes.", conversation=f"c-{number}", id=f"t-{number}-{turn}")

    threads = [threading.Thread(target=chat, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush()
    assert house.received() == {f"t-{number}-{turn}" for number in range(5) for turn in range(60)}
    sizes = [len(request.items) for request in house.door.seen]
    assert max(sizes) == 50
    assert client.stats["created"] == 300


def test_a_lonely_turn_goes_after_the_time_for_a_batch(house: House) -> None:
    client = house.client(flush_seconds=0.2)
    client.log_turn(QUESTION, ANSWER, id="t-1")
    assert until(house.received) == {"t-1"}


def test_large_batches_are_packed_unless_the_server_cannot_unpack(house: House) -> None:
    client = house.client()
    client.log_turn(QUESTION, ANSWER * 100)
    assert client.flush()
    assert house.door.seen[0].headers.get("Content-Encoding") == "gzip"
    assert (len(house.door.seen), client.stats["created"]) == (1, 1), "it was unpacked there"
    house.door.plain_only = True
    other = house.client()
    for _ in range(2):
        other.log_turn(QUESTION, ANSWER * 100)
        assert other.flush()
    packed = [request.headers.get("Content-Encoding") for request in house.door.seen[-3:]]
    assert packed == ["gzip", None, None]
    assert (client.stats["created"], other.stats["created"]) == (1, 2)


def test_batches_stay_within_bytes(house: House) -> None:
    with house.client(close_seconds=30) as client:
        for _ in range(5):
            client.log_turn(QUESTION, "x" * 99_000, contexts=["y" * 99_000] * 12)
    assert client.stats["created"] == 5
    assert max(len(request.items) for request in house.door.seen) <= 3


def test_what_the_api_refuses_is_told_and_the_rest_arrives(house: House) -> None:
    with house.client() as client:
        client.log_turn(QUESTION, ANSWER, id="good")
        client.log_turn(QUESTION, "  ", id="blank")
        client.log_turn(QUESTION, ANSWER, id="extra", colour="red")
        client.log_turn(QUESTION, ANSWER, id="good")
    assert house.received() == {"good"}
    told = {problem.reason: problem for problem in house.problems}
    assert {kind.kind for kind in house.problems} == {"refused"}
    assert told["invalid: response must not be blank"].ids == ["blank"]
    assert told["invalid: colour There is no such field here"].errors[0]["field"] == "colour"
    conflict = next(problem for reason, problem in told.items() if reason.startswith("conflict"))
    assert (conflict.count, conflict.ids) == (1, ["good"])  # another time: not the same turn
    assert (client.stats["created"], client.stats["refused"]) == (1, 3)


def test_objects_of_the_host_become_json_or_are_told(house: House) -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    circle: dict[str, Any] = {}
    circle["self"] = circle
    with house.client() as client:
        client.log_turn(QUESTION, ANSWER, id="np", contexts=[{"text": "t", "score": np.float32(0.5)}],
                        metadata={"price": Decimal("3.50"), "day": datetime(2026, 1, 1)})  # fmt: skip
        client.log_turn("Half \ud83d a pair, and \x00?", "Ja \udc00.", id="surrogates")
        client.log_turn(QUESTION, ANSWER, id="nan", latency_ms=float("nan"))
        client.log_turn(QUESTION, ANSWER, id="rude", metadata={"x": Rude()})
        client.log_turn(QUESTION, ANSWER, id="circle", metadata=circle)
        client.log_turn(QUESTION, ANSWER, id="large", contexts=["x" * 9_000_000])
        client.log_turn(QUESTION, ANSWER, id="not-a-list", contexts=7)  # type: ignore[arg-type]
        client.feedback("np", "thumb", value=float("inf"))
        client.log_turn(3, None)  # type: ignore[arg-type]
    assert house.received() == {"np", "surrogates"}
    turns = house.turns()
    assert turns["np"].metadata["price"] == "3.50"
    assert turns["np"].retrievals.get().score == 0.5
    assert client.stats == {"logged": 9, "created": 2, "refused": 7}
    assert {name for problem in house.problems for name in problem.ids} >= {"nan", "rude", "circle", "large"}


def test_what_the_host_changes_later_does_not_count(house: House) -> None:
    metadata = {"step": 1}
    with house.client(flush_seconds=5) as client:
        name = client.log_turn(QUESTION, ANSWER, metadata=metadata)
        metadata["step"] = 2
    assert house.turns()[name].metadata["step"] == 1


def test_feedback_may_come_before_its_turn(house: House) -> None:
    early = house.client()
    early.feedback("t-9", "rating", value=4)
    until(lambda: early.stats["queued"] and len(house.door.seen) > 1)  # refused once, and tried again
    house.client().log_turn(QUESTION, ANSWER, id="t-9")
    until(lambda: early.stats["created"])
    assert house.problems == []
    house.turns()
    assert Feedback.objects.get().kind == "rating"


def test_feedback_and_updates_on_nothing_are_given_up(house: House) -> None:
    client = house.client(retry_seconds=(0.01, 0.1))
    client.feedback("nobody", "thumb", value=1)
    client.update("nobody", outcome="resolved")
    until(lambda: client.stats["refused"] == 2)
    until(lambda: sum(problem.count for problem in house.problems) == 2)
    assert {problem.reason for problem in house.problems} == {"invalid: turn There is no such turn"}


def test_updates_go_in_batches_behind_their_turns_and_count_once(house: House) -> None:
    house.door.swallows = True  # the server takes them, and its answers are lost
    client = house.client()
    names = [client.log_turn(f"Question {number}?", ANSWER, tags=["web"]) for number in range(3)]
    for name in names:
        client.update(name, outcome="escalated", latency_ms=910, tags=["late"], metadata={"agent": 3})
        client.update(name, outcome="resolved")
    client.update(names[0], colour="red")
    client.update(names[0], metadata={"x": float("nan")})
    until(lambda: len(house.door.seen) > 1)
    house.door.swallows = False
    assert client.flush()
    turns = house.turns()
    assert {turns[name].outcome for name in names} == {"resolved"}
    assert [turns[names[0]].latency_ms, turns[names[0]].tags, turns[names[0]].metadata] == [
        910, ["web", "late"], {"agent": 3},
    ]  # fmt: skip
    (request,) = [seen for seen in house.door.seen if len(seen.items) == 7]
    assert request.path == "/api/v1/turns/batch"
    assert client.stats["created"] + client.stats["duplicate"] == 9
    assert client.stats["refused"] == 2
    assert TurnUpdate.objects.count() == 6


def test_an_update_may_come_before_its_turn(house: House) -> None:
    early = house.client()
    early.update("t-9", outcome="escalated")
    until(lambda: early.stats["queued"] and len(house.door.seen) > 1)
    late = house.client()
    late.log_turn(QUESTION, ANSWER, id="t-9")
    late.update("t-9", outcome="resolved")
    assert late.flush()
    house.turns()
    until(lambda: early.stats["created"])
    assert house.turns()["t-9"].outcome == "resolved", "what was known later counts, whichever comes first"


def test_a_click_twice_counts_once(house: House) -> None:
    with house.client() as client:
        name = client.log_turn(QUESTION, ANSWER)
        for _ in range(2):
            client.feedback(name, "thumb", value=1)
    assert client.stats["duplicate"] == 1


def test_a_key_that_may_not_log_loses_nothing_until_the_end(house: House, caplog: Any) -> None:
    client = house.client(key=house.reader)
    client.log_turn(QUESTION, ANSWER, id="t-1")
    until(lambda: len(house.door.seen) > 1)
    assert client.stats["queued"] == 1
    assert "403" in caplog.text
    assert house.reader not in caplog.text
    client.close(0.2)
    assert (house.problems[0].kind, house.problems[0].ids) == ("lost", ["t-1"])
    assert house.received() == set()


def test_a_key_logs_for_its_own_assistant(house: House) -> None:
    with house.client(key=house.other_secret) as client:
        client.log_turn(QUESTION, ANSWER)
    assert client.stats["created"] == 1
    assert house.received() == set()


def test_logging_after_close_is_lost_and_harmless(house: House, caplog: Any) -> None:
    client = house.client()
    client.close()
    client.close()
    client.log_turn(QUESTION, ANSWER)
    client.feedback("t", "thumb", value=1)
    assert client.stats == {"logged": 2, "lost": 2}
    assert caplog.text.count("after the client was closed") == 1
    assert client.flush(0.1)


def test_a_callback_that_raises_or_closes_does_no_harm(house: House) -> None:
    def bad(_: object) -> None:
        client.close(1)
        raise RuntimeError("the host's own")

    client = house.client(on_problem=bad)
    client.log_turn(QUESTION, " ")
    until(lambda: client.stats["refused"])
    client.log_turn(QUESTION, ANSWER)
    assert client.stats["logged"] == 2


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("ratchet.example.org", "rk_x"), {}),
        (("ftp://ratchet.example.org", "rk_x"), {}),
        (("https://ratchet.example.org?x=1", "rk_x"), {}),
        (("https://ratchet.example.org", ""), {}),
        (("https://ratchet.example.org", "rk_x\r\nX-Evil: 1"), {}),
        (("https://ratchet.example.org", "rk_x"), {"flush_items": 1001}),
        (("https://ratchet.example.org", "rk_x"), {"queue_items": 0}),
        (("https://ratchet.example.org", "rk_x"), {"timeout": -1}),
        (("https://ratchet.example.org", "rk_x"), {"retry_seconds": (5, 1)}),
    ],
)
def test_what_makes_no_sense_is_said_at_once(arguments: tuple[str, str], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Client(*arguments, **options)


async def _chat(client: AsyncClient, number: int) -> str:
    name = await client.log_turn(f"Question {number}?", "Yes.", conversation="c")
    await client.feedback(name, "thumb", value=1)
    await client.update(name, outcome="resolved")
    return name


def test_awaited(house: House) -> None:
    async def main() -> list[str]:
        async with AsyncClient(house.url, house.secret, flush_seconds=0.05) as client:
            names = await asyncio.gather(*(_chat(client, number) for number in range(40)))
            assert await client.flush()
            assert client.stats["created"] == 120
        return names

    assert set(asyncio.run(main())) == house.received()
    assert {turn.outcome for turn in house.turns().values()} == {"resolved"}


def test_the_loop_goes_on_while_the_server_is_slow(house: House) -> None:
    house.door.delay = 0.5

    async def main() -> float:
        longest = 0.0
        async with AsyncClient(house.url, house.secret, flush_seconds=0.01) as client:
            for number in range(50):
                began = time.monotonic()
                await client.log_turn(f"Question {number}?", "Yes.")
                await asyncio.sleep(0.002)
                longest = max(longest, time.monotonic() - began)
        return longest

    assert asyncio.run(main()) < 0.25
    assert len(house.received()) == 50


def test_metrics_and_the_time_of_feedback_arrive(house: House) -> None:
    client = house.client()
    name = client.log_turn(QUESTION, ANSWER, client="shop-bot/2.1", outcome="resolved")
    client.feedback(name, "metric", metric="resolved", value=True, time="2026-03-01T10:00:00Z")
    client.feedback(name, "metric", metric="minutes", value=2.5)
    client.feedback(name, "metric", metric="Not a name", value=1)
    assert client.flush()
    turn = house.turns()[name]
    assert (turn.client, turn.outcome) == ("shop-bot/2.1", "resolved")
    given = {row.metric: row for row in Feedback.objects.filter(turn=turn)}
    assert (given["resolved"].shown_value, given["minutes"].shown_value) == (True, 2.5)
    assert given["resolved"].given_at.isoformat() == "2026-03-01T10:00:00+00:00"
    assert client.stats["refused"] == 1

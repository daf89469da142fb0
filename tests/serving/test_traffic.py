"""Traffic by the hour is what the turns say, however often it is counted."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from assistants.models import ApiKey, Assistant
from capture.models import Turn
from serving.models import TrafficDay, TrafficHour, TrafficMark
from serving.traffic import counting
from serving.traffic.counting import count
from serving.traffic.latency import BINS, EDGES, added, percentile
from serving.traffic.models import OTHER_MODELS
from tests.factories import make_assistant, make_feedback, make_turn

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant("helpdesk")


def ask(assistant: Assistant, at: datetime = NOON, **fields: Any) -> Turn:
    return make_turn(assistant, asked_at=at, **fields)


def rows() -> dict[tuple[datetime, str], TrafficHour]:
    return {(row.hour, row.adapter): row for row in TrafficHour.objects.all()}


def test_an_hour_holds_what_its_turns_say(assistant: Assistant) -> None:
    first = ask(assistant, latency_ms=100, prompt_tokens=10, pii=[{"type": "PERSON"}, {"type": "PERSON"}])
    ask(assistant, NOON + timedelta(minutes=59), latency_ms=900, declined=True, pii=[{"type": "EMAIL_ADDRESS"}])
    ask(assistant, NOON + timedelta(minutes=60), adapter="bot-1")
    ask(make_assistant("other"))
    make_feedback(first, value=-1.0)
    make_feedback(first, value=1.0)
    assert count() == 3
    found = {key: row for key, row in rows().items() if row.assistant == assistant}
    hour = found[NOON, ""]
    assert (hour.turns, hour.declined, hour.up, hour.down, hour.prompt_tokens) == (2, 1, 1, 1, 10)
    assert hour.masked == {"PERSON": 2, "EMAIL_ADDRESS": 1}
    assert sum(hour.latencies) == 2
    assert found[NOON + timedelta(hours=1), "bot-1"].turns == 1
    assert sum(found[NOON + timedelta(hours=1), "bot-1"].latencies) == 0


def test_the_playground_is_no_traffic(assistant: Assistant) -> None:
    key = ApiKey.objects.create(assistant=assistant, name="frontend")
    own = ask(assistant, tags=["playground"], pii=[{"type": "PERSON"}])
    ask(assistant, tags=["playground"], api_key=key)  # a frontend of that name
    ask(assistant, NOON + timedelta(hours=2), tags=["playground"])
    assert count() == 2
    assert [(row.hour, row.turns, row.masked) for row in TrafficHour.objects.all()] == [(NOON, 1, {})]
    assert own not in Turn.objects.asked_by_users()


def test_what_comes_later_changes_its_hour_and_no_other(assistant: Assistant) -> None:
    turn = ask(assistant)
    ask(assistant, NOON + timedelta(hours=5))
    assert count() == 2
    TrafficMark.objects.update(counted_until=datetime.now(UTC) + timedelta(hours=1))
    assert count() == 0
    TrafficMark.objects.update(counted_until=datetime.now(UTC) - timedelta(minutes=30))
    Turn.objects.update(created_at=datetime.now(UTC) - timedelta(days=2))
    make_feedback(turn, value=-1.0)
    assert count() == 1
    assert rows()[NOON, ""].down == 1
    assert rows()[NOON + timedelta(hours=5), ""].down == 0


def test_counting_twice_changes_nothing_and_the_daily_count_sees_what_was_erased(assistant: Assistant) -> None:
    now = datetime.now(UTC)
    turn = ask(assistant, now - timedelta(days=3))
    ask(assistant, now - timedelta(days=4))
    count()
    count()
    assert sum(row.turns for row in rows().values()) == 2
    turn.delete()
    TrafficMark.objects.update(rebuilt_at=now - timedelta(days=2))
    count()
    assert sum(row.turns for row in rows().values()) == 1


def test_names_that_a_client_invents_make_no_rows_without_end(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MOST_NAMES", 3)
    for _ in range(3):
        ask(assistant, model="m", adapter="bot-1", latency_ms=100)
        ask(assistant, model="gpt", latency_ms=100)
    for number in range(9):
        ask(assistant, model=f"name {number}", adapter=f"adapter {number}", latency_ms=100, pii=[{"type": "PERSON"}])
    ask(assistant, NOON + timedelta(hours=1), model="name 7")
    count()
    found = {(row.hour, row.model, row.adapter): row for row in TrafficHour.objects.all()}
    assert len(found) == 5
    other = found[NOON, OTHER_MODELS, ""]
    assert (other.turns, sum(other.latencies), other.masked) == (8, 8, {"PERSON": 8})
    assert found[NOON, "m", "bot-1"].turns == found[NOON, "gpt", ""].turns == 3
    assert found[NOON + timedelta(hours=1), "name 7", ""].turns == 1
    assert sum(row.turns for row in found.values()) == Turn.objects.count()


Day = tuple[Assistant, date, str, str]


def summed(zone: str) -> dict[Day, tuple[list[int], list[int], dict[str, int]]]:
    """(numbers, latencies, masked) of each day, from the hours."""
    found: dict[Day, tuple[list[int], list[int], dict[str, int]]] = {}
    for row in TrafficHour.objects.select_related("assistant"):
        day = row.hour.astimezone(ZoneInfo(zone)).date()
        numbers, latencies, masked = found.get((row.assistant, day, row.model, row.adapter), ([0] * 7, [0] * BINS, {}))
        for kind, n in row.masked.items():
            masked = {**masked, kind: masked.get(kind, 0) + n}
        added_up = [a + b for a, b in zip(numbers, numbers_of(row), strict=True)]
        found[row.assistant, day, row.model, row.adapter] = added_up, added([latencies, row.latencies]), masked
    return found


def numbers_of(row: TrafficHour | TrafficDay) -> list[int]:
    names = ("turns", "declined", "up", "down", "escalated", "prompt_tokens", "completion_tokens")
    return [int(getattr(row, name)) for name in names]


def days() -> dict[Day, tuple[list[int], list[int], dict[str, int]]]:
    rows = TrafficDay.objects.select_related("assistant")
    return {(r.assistant, r.day, r.model, r.adapter): (numbers_of(r), r.latencies, r.masked) for r in rows}


def test_a_day_is_the_sum_of_its_hours_in_any_time_zone(assistant: Assistant, settings: Any) -> None:
    chance = random.Random(4)
    turns = []
    for owner in (assistant, make_assistant("other")):
        for _ in range(25):
            at = NOON + timedelta(minutes=chance.randint(0, 60 * 72))
            kinds = [{"type": chance.choice(("PERSON", "EMAIL_ADDRESS"))} for _ in range(chance.randint(0, 3))]
            turns.append(ask(owner, at, latency_ms=chance.randint(5, 9_000), declined=chance.random() < 0.3, pii=kinds,
                             prompt_tokens=chance.randint(0, 99), adapter=chance.choice(("", "bot-1"))))  # fmt: skip
    for turn in turns[::3]:
        make_feedback(turn, value=chance.choice((-1.0, 1.0)))
    count()
    assert days() == summed("UTC")
    assert len({day for _, day, _, _ in days()}) >= 3
    settings.TIME_ZONE = "Asia/Kolkata"  # half an hour beside the hours
    before = days()
    count()
    assert days() == summed("Asia/Kolkata") != before
    turns[0].delete()
    Turn.objects.filter(adapter="bot-1", assistant=assistant).delete()
    TrafficMark.objects.update(counted_until=datetime(2026, 1, 1, tzinfo=UTC))
    count()
    TrafficMark.objects.update(counted_until=None, rebuilt_at=None)
    count()
    assert days() == summed("Asia/Kolkata")
    assert not any(owner == assistant and adapter for owner, _, _, adapter in days())


def test_a_day_has_its_busiest_names_only(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_NAMES", 2)
    for hour in range(6):
        for _ in range(2):
            ask(assistant, NOON + timedelta(hours=hour), model="m", latency_ms=100)
        ask(assistant, NOON + timedelta(hours=hour), model=f"name {hour}", pii=[{"type": "PERSON"}])
    count()
    assert TrafficHour.objects.count() == 12
    found = {row.model: row for row in TrafficDay.objects.all()}
    assert {name: row.turns for name, row in found.items()} == {"m": 12, "name 0": 1, OTHER_MODELS: 5}
    assert found[OTHER_MODELS].masked == {"PERSON": 5}


@how(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_percentiles_lie_within_a_bin_of_the_truth(latencies: list[int], share: float) -> None:
    counts = [0] * BINS
    for latency in latencies:
        counts[sum(edge <= latency for edge in EDGES)] += 1
    found = percentile(counts, share)
    assert found is not None
    truth = sorted(latencies)[max(0, -(-len(latencies) * share // 1).__int__() - 1)]
    place = sum(edge <= truth for edge in EDGES)
    low = EDGES[place - 1] if place else 0
    high = EDGES[place] if place < len(EDGES) else EDGES[-1]
    assert low <= found <= high or truth >= EDGES[-1]


def test_no_turns_have_no_percentile() -> None:
    assert percentile([0] * BINS, 0.5) is None
    assert added([]) == [0] * BINS
    assert added([[1] * BINS, [2] * BINS]) == [3] * BINS

"""Back-pressure: 503 before the quarantine is too full, counts of what was refused, the page and the metrics of it."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError
from django.test import Client, RequestFactory
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from assistants import limits
from assistants.errors import ApiError
from assistants.services import issue_key
from capture import counting, room
from capture.jobs import close_traces, scrub_waiting
from capture.models import IntakeCount, Quarantine, WaitingSpans
from config.metrics import metrics
from tests.capture.conftest import Call, Cast, turn_item
from tests.capture.test_api import problem

Settings = Any
FAR = 3600.0


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    room.forget()
    counting.reset()
    yield
    room.forget()
    counting.reset()


def counted(**wanted: Any) -> dict[tuple[str, str], int]:
    counting.flush()
    rows = IntakeCount.objects.filter(minute=None, **wanted).values_list("event", "reason", "count")
    return {(event, reason): n for event, reason, n in rows}


# --- Room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["RATCHET_QUARANTINE_MAX_ITEMS", "RATCHET_QUARANTINE_MAX_BYTES"])
def test_a_full_quarantine_says_when_to_come_back(api: Call, cast: Cast, settings: Settings, setting: str) -> None:
    api("post", "turns", turn_item())
    setattr(settings, setting, 1)
    room.forget()
    for method, path, body in (
        ("post", "turns", turn_item(id="t-2")),
        ("post", "turns/batch", [turn_item(id="t-3")]),
        ("post", "feedback", {"turn": "t-1", "kind": "escalation"}),
        ("patch", "turns/t-1", {"outcome": "resolved"}),
    ):
        answer = api(method, path, body)
        assert "full" in problem(answer, 503)["detail"]
        assert answer.headers["Retry-After"] == "10"
    assert Quarantine.objects.count() == 1
    # The other assistant has room of its own, and reading goes on.
    assert api("post", "turns", turn_item(), secret=cast.other_secret).status_code == 201
    assert api("get", "turns").status_code == 200
    assert counted(api_key=cast.key, event="refused") == {("refused", "full"): 4}


def test_there_is_room_again_when_it_was_scrubbed(
    api: Call, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", FAR)
    settings.RATCHET_QUARANTINE_MAX_ITEMS = 1
    assert api("post", "turns", turn_item()).status_code == 201
    problem(api("post", "turns", turn_item(id="t-2")), 503)
    scrub_waiting()
    problem(api("post", "turns", turn_item(id="t-2")), 503)  # until it looks again
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.0)
    assert api("post", "turns", turn_item(id="t-2")).status_code == 201


def test_what_this_process_takes_counts_before_the_next_look(
    api: Call, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", FAR)
    settings.RATCHET_QUARANTINE_MAX_ITEMS = 3
    assert api("post", "turns/batch", [turn_item(id=f"t-{n}") for n in range(3)]).json()["created"] == 3
    problem(api("post", "turns", turn_item(id="t-9")), 503)


def test_a_request_costs_no_count_while_the_numbers_are_fresh(
    api: Call, cast: Cast, django_assert_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", FAR)
    room.check_room(cast.bot)
    with django_assert_num_queries(0):
        room.check_room(cast.bot)


@pytest.mark.django_db(transaction=True)
def test_a_web_process_looks_in_a_thread_of_its_own(cast: Cast, settings: Settings) -> None:
    settings.PROCESS = "web"
    settings.RATCHET_QUARANTINE_MAX_ITEMS = 1
    Quarantine.objects.create(assistant=cast.bot, conversation_key="c", payload=b"x")
    room.check_room(cast.bot)  # nothing is known yet, and nobody waits for it
    for thread in threading.enumerate():
        if thread.name == "quarantine-look":
            thread.join(10)
    with pytest.raises(ApiError) as refused:
        room.check_room(cast.bot)
    assert refused.value.status_code == 503


def test_a_look_counts_no_further_than_to_the_bound(cast: Cast, settings: Settings) -> None:
    settings.RATCHET_QUARANTINE_MAX_ITEMS = 5
    Quarantine.objects.bulk_create(
        Quarantine(assistant=cast.bot, conversation_key="c", payload=b"x" * 10) for _ in range(9)
    )
    load = room.look(cast.bot.pk)
    assert (load.items, load.size, load.is_full) == (5, 50, True)


def test_traces_wait_while_their_assistant_has_no_room(cast: Cast, settings: Settings) -> None:
    long_ago = timezone.now() - timedelta(hours=2)
    for assistant in (cast.bot, cast.other):
        WaitingSpans.objects.create(
            assistant=assistant, trace="a" * 32, digest="d", payload=b"x", size=1, spans=1, received_at=long_ago
        )
    settings.RATCHET_QUARANTINE_MAX_ITEMS = 1
    Quarantine.objects.create(assistant=cast.bot, conversation_key="c", payload=b"x")
    close_traces()
    held = WaitingSpans.objects.exclude(error="").values_list("assistant", flat=True)
    assert list(held) == [cast.other.pk], "what was looked at cannot be opened; the other was left alone"


# --- Rates ----------------------------------------------------------------------------------------


def test_a_key_gets_its_rate_and_no_more_from_many_threads(cast: Cast, settings: Settings) -> None:
    settings.RATCHET_RATE_LIMIT = "50/hour"
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def ask() -> None:
        for _ in range(20):
            try:
                limits.take(cast.key)
                said = "200"
            except ApiError as error:
                said = f"{error.status_code} {60 <= int(error.headers['Retry-After']) <= 3600}"
            with lock:
                outcomes[said] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"200": 50, "429 True": 110}


# --- Counts ---------------------------------------------------------------------------------------


def test_what_comes_in_is_counted_by_key_and_reason(api: Call, cast: Cast, settings: Settings) -> None:
    api("post", "turns", turn_item())
    api("post", "turns", turn_item())
    api("post", "turns", turn_item(question="Other?"))
    api("post", "turns", turn_item(question=""))
    api("post", "turns/batch", b'{"id": "x"}\n{broken\n', content_type="application/x-ndjson")
    api("post", "turns", b"{", content_type="application/json")
    api("post", "turns", b"{}", content_type="text/csv")
    api("post", "turns", b"no gzip", HTTP_CONTENT_ENCODING="gzip")
    api("post", "turns/batch", gzip.compress(b" " * 9_000_000), HTTP_CONTENT_ENCODING="gzip")
    api("post", "feedback", {"turn": "t-1", "kind": "thumb", "value": 1})
    api("post", "feedback", {"turn": "t-9", "kind": "thumb", "value": 1})
    api("patch", "turns/t-1", {"outcome": "resolved"})
    api("get", "turns?limit=0")
    settings.RATCHET_RATE_LIMIT = "1/hour"
    limits.reset()
    api("post", "turns", turn_item())
    api("post", "turns", turn_item())
    _, reader = issue_key(assistant=cast.bot, name="reader", scopes=["read"])
    api("post", "turns", turn_item(), secret=reader)
    assert counted(api_key=cast.key) == {
        ("received", "turn"): 1, ("received", "feedback"): 1, ("received", "update"): 1, ("repeated", "turn"): 2,
        ("refused", "conflict"): 1, ("refused", "invalid"): 3, ("refused", "unreadable"): 3,
        ("refused", "content type"): 1, ("refused", "too large"): 1, ("refused", "rate"): 1,
    }  # fmt: skip
    assert counted(api_key__name="reader") == {("refused", "scope"): 1}
    assert counted(assistant=cast.other) == {}
    scrub_waiting()
    assert counted(api_key=None) == {("scrubbed", "turn"): 1, ("scrubbed", "feedback"): 1, ("scrubbed", "update"): 1}


def test_counts_add_up_by_minute_and_ever(cast: Cast) -> None:
    for _ in range(3):
        counting.count(cast.bot.pk, cast.key.pk, IntakeCount.Event.RECEIVED, "turn", 2)
        counting.flush()
    assert IntakeCount.objects.get(minute=None).count == 6
    assert sum(IntakeCount.objects.exclude(minute=None).values_list("count", flat=True)) == 6
    IntakeCount.objects.exclude(minute=None).update(minute=timezone.now() - timedelta(days=3))
    assert counting.forget_old() >= 1
    assert IntakeCount.objects.get().count == 6


@pytest.mark.django_db(transaction=True)
def test_counts_of_what_is_gone_go_with_it_and_a_lost_database_loses_none(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting.count(cast.bot.pk, 10**9, IntakeCount.Event.REFUSED, "rate")
    counting.count(10**9, None, IntakeCount.Event.REFUSED, "rate")
    counting.count(cast.bot.pk, cast.key.pk, IntakeCount.Event.REFUSED, "rate")

    def away(rows: object) -> None:
        raise OperationalError

    with monkeypatch.context() as broken:
        broken.setattr(counting, "_write", away)
        counting.flush()
    assert counted() == {("refused", "rate"): 1}


# --- The page -------------------------------------------------------------------------------------


def test_the_page_shows_ones_own_assistants_to_admins_and_privacy_officers(
    api: Call, cast: Cast, client: Client, settings: Settings
) -> None:
    api("post", "turns", turn_item(id="t-1"))
    api("post", "turns", turn_item(id="t-2", question=""))
    api("post", "turns", turn_item(question=""), secret=cast.other_secret)
    Quarantine.objects.create(assistant=cast.bot, conversation_key="c", payload=b"x", state="held", error="Why")
    counting.flush()
    for person in (cast.alice, cast.dana):
        client.force_login(person)
        page = client.get("/admin/capture/intakecount/").content.decode()
        assert "1 item waits to be scrubbed" in page
        assert "1 held" in page
        assert "a field was not valid" in page
        assert "Other" not in page
    settings.RATCHET_QUARANTINE_MAX_ITEMS = 2
    assert "is full" in client.get("/admin/capture/intakecount/").content.decode()
    client.force_login(cast.bob)
    assert client.get("/admin/capture/intakecount/").status_code == 403
    assert "capture/intakecount" not in client.get("/admin/").content.decode()
    client.logout()
    assert client.get("/admin/capture/intakecount/").status_code == 302
    client.force_login(cast.carol)
    page = client.get("/admin/capture/intakecount/?assistant=bot").content.decode()
    assert "Nothing waits" in page
    assert cast.key.prefix not in page
    assert client.get("/admin/capture/intakecount/1/change/").status_code == 404


def test_the_page_costs_the_same_however_much_there_is(
    cast: Cast, client: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    Quarantine.objects.bulk_create(
        Quarantine(assistant=cast.bot, conversation_key="c", payload=b"x" * 100) for _ in range(300)
    )
    for n in range(150):
        counting.count(cast.bot.pk, cast.key.pk, IntakeCount.Event.REFUSED, f"reason {n}")
    counting.flush()
    client.force_login(cast.alice)
    with django_assert_max_num_queries(16):
        page = client.get("/admin/capture/intakecount/").content.decode()
    assert "The first 100 are shown" in page


def test_admins_declare_metrics_and_others_read_them(cast: Cast, client: Client) -> None:
    client.force_login(cast.alice)
    form = {"assistant": cast.bot.pk, "name": "resolved", "holds": "boolean", "description": "Said so at the end"}
    assert client.post("/admin/capture/metric/add/", form).status_code == 302
    assert client.post("/admin/capture/metric/add/", {**form, "name": "Ann@example.org"}).status_code == 200
    assert client.post("/admin/capture/metric/add/", form).status_code == 200, "once"
    client.force_login(cast.dana)
    assert "resolved" in client.get("/admin/capture/metric/").content.decode()
    assert client.get("/admin/capture/metric/add/").status_code == 403


# --- /metrics -------------------------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_the_page_shows(api: Call, cast: Cast, client: Client) -> None:
    api("post", "turns", turn_item())
    api("post", "turns", turn_item(id="x", question=""))
    Quarantine.objects.create(assistant=cast.bot, conversation_key="c", payload=b"x", state="held")
    counting.flush()
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    found = samples(answer.content.decode())
    assert found["ratchet_quarantine_items", "bot", "waiting"] == 1
    assert found["ratchet_quarantine_items", "bot", "held"] == 1
    assert found["ratchet_quarantine_items", "other", "waiting"] == 0
    assert 0 < found["ratchet_quarantine_fullness", "bot"] < 0.01
    assert found["ratchet_quarantine_oldest_seconds", "bot"] < 60
    assert found[("ratchet_intake_total", *sorted([cast.key.prefix, "bot", "invalid", "refused"]))] == 1
    assert cast.secret not in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("token", "meta", "status"),
    [
        ("", {"REMOTE_ADDR": "127.0.0.1"}, 200),
        ("", {"REMOTE_ADDR": "::1"}, 200),
        ("", {"REMOTE_ADDR": "10.0.0.7"}, 403),
        ("", {"REMOTE_ADDR": ""}, 403),
        ("", {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "10.0.0.7"}, 403),
        ("", {"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=10.0.0.7"}, 403),
        ("s3cret", {"REMOTE_ADDR": "127.0.0.1"}, 403),
        ("s3cret", {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Bearer s3cret"}, 200),
        ("s3cret", {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Bearer other"}, 403),
        ("s3cret", {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Bearer ünicode"}, 403),
        ("s3cret", {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Basic s3cret"}, 403),
    ],
)  # fmt: skip
def test_metrics_are_for_this_machine_or_for_a_token(
    settings: Settings, token: str, meta: dict[str, str], status: int
) -> None:
    settings.RATCHET_METRICS_TOKEN = token
    answer = metrics(RequestFactory().get("/metrics", **meta))  # type: ignore[arg-type]
    assert answer.status_code == status
    assert metrics(RequestFactory().post("/metrics", **meta)).status_code == 405  # type: ignore[arg-type]
    assert (b"ratchet_intake" in answer.content) == (status == 200)


# --- The thread that writes ---------------------------------------------------------------------------


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "intake-counts"]


@pytest.mark.django_db(transaction=True)
def test_a_web_process_writes_beside_its_requests_and_ends_with_nothing_to_write(
    cast: Cast, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROCESS = "web"
    monkeypatch.setattr(counting._beside, "seconds", 0.05)
    for n in (2, 3):
        counting.count(cast.bot.pk, cast.key.pk, IntakeCount.Event.RECEIVED, "turn", n)
        assert len(writers()) == 1
    for thread in writers():
        thread.join(10)
    assert writers() == []
    assert IntakeCount.objects.get(minute=None).count == 5


@pytest.mark.django_db(transaction=True)
def test_what_could_not_be_written_is_tried_again(
    cast: Cast, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROCESS = "web"
    monkeypatch.setattr(counting._beside, "seconds", 0.05)
    real, failed = counting._write, threading.Event()

    def fails_once(rows: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise InterfaceError("away")
        real(rows)

    monkeypatch.setattr(counting, "_write", fails_once)
    counting.count(cast.bot.pk, cast.key.pk, IntakeCount.Event.RECEIVED, "turn", 2)
    while threads := writers():
        threads[0].join(10)
    assert failed.is_set()
    assert IntakeCount.objects.get(minute=None).count == 2


def test_after_a_reset_nothing_is_left_that_could_write(settings: Settings) -> None:
    """A test without a database, as those behind it: a writer would be refused one."""
    settings.PROCESS = "web"
    for _ in range(20):
        counting.count(1, None, IntakeCount.Event.RECEIVED, "turn")
        counting.reset()
    assert writers() == []

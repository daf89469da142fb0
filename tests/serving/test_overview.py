"""The overview pages: what they count, who may read them, what they cost, and that no text becomes markup."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from annotations.models import Annotation, Reason, Resolution
from assistants.models import Assistant
from capture.models import LeakReport
from serving.chat import base_name
from serving.experiments.plan import Plan
from serving.experiments.services import start
from serving.overview.panels import RANGES, Span, Table, as_csv, by_label, share
from serving.services import promote
from serving.traffic.counting import count
from tests.factories import make_adapter, make_assistant, make_evaluation, make_feedback, make_turn, make_user
from training.models import DatasetVersion

PAGES = ("live", "labels", "data", "privacy")
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def assistant(db: None) -> Assistant:
    people = {
        "admin": [make_user("alice")], "reviewer": [make_user("rob")], "annotator": [make_user("ann")],
        "privacy": [make_user("pia")],
    }  # fmt: skip
    make_assistant("other", members={"admin": [make_user("carol")]})
    return make_assistant("bot", members=people)


def enter(name: str) -> Client:
    from django.contrib.auth.models import User

    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def fill(assistant: Assistant, *, turns: int = 6) -> None:
    from django.contrib.auth.models import User

    now = timezone.now()
    adapter = make_adapter(assistant)
    promote(assistant=assistant, adapter=adapter, evaluation=make_evaluation(adapter, verdict="passed"), actor=None)
    ann = User.objects.get(username="ann")
    for n in range(turns):
        turn = make_turn(
            assistant, asked_at=now - timedelta(hours=n), latency_ms=300 * (n + 1), adapter="bot-1" if n % 2 else "",
            model=HOSTILE, declined=n == 0, pii=[{"type": "PERSON"}],
        )  # fmt: skip
        make_feedback(turn, value=-1.0 if n == 1 else 1.0)
        bad = n % 3 == 0
        Annotation.objects.create(
            turn=turn, annotator=ann, verdict="bad" if bad else "good", reasons=["wrong"] if bad else [], seconds=9.0
        )
        Resolution.objects.create(turn=turn, verdict="bad" if bad else "good", how="single")
    DatasetVersion.objects.create(
        assistant=assistant,
        number=1,
        state="succeeded",
        rows=9,
        mix={"good": {"answer": 7}, "declined": {"decline": 2}},
    )
    LeakReport.objects.create(assistant=assistant, subject="Dataset 1", verdict="clean", policy_digest="0")
    count()


def chart(page: str, key: str) -> Any:
    found = re.search(rf'<script id="{key}-data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None, key
    return json.loads(found[1])


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("days", RANGES)
def test_an_empty_page_says_what_fills_it(assistant: Assistant, page: str, days: int) -> None:
    answer = enter("alice").get(f"/admin/dashboards/overview/{page}/bot/?days={days}")
    assert answer.status_code == 200
    assert "rt-empty" in answer.content.decode()


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("alice", set(PAGES)),
        ("rob", {"live", "labels", "data"}),
        ("pia", {"privacy"}),
        ("ann", set()),
        ("carol", set()),
    ],
)
def test_roles_decide(assistant: Assistant, who: str, allowed: set[str]) -> None:
    client = enter(who)
    seen = {page for page in PAGES if client.get(f"/admin/dashboards/overview/{page}/bot/").status_code == 200}
    assert seen == allowed
    for page in PAGES:
        answer = client.get(f"/admin/dashboards/overview/{page}/")
        assert answer.status_code == (302 if page in allowed or who == "carol" else 403)
    assert Client().get("/admin/dashboards/overview/live/bot/").status_code == 302  # to the login


def test_live_counts_by_adapter_and_marks_promotions(assistant: Assistant) -> None:
    fill(assistant)
    client = enter("alice")
    page = client.get("/admin/dashboards/overview/live/bot/?days=7").content.decode()
    assert "6 questions were asked in 7 days" in page
    assert HOSTILE not in page
    drawn = chart(page, "traffic")
    assert {series["name"]: sum(series["values"]) for series in drawn["series"]} == {HOSTILE: 3, "bot-1": 3}
    assert "✗ Base model" in page  # no files are behind what is live
    assert "not Adapter 1: it was trained on another base model" in page
    assert len(drawn["labels"]) == 7
    assert [mark["text"] for mark in drawn["marks"]] == ["Promoted: Adapter 1"]
    assert drawn["marks"][0]["label"] in drawn["labels"]
    table = client.get("/admin/dashboards/overview/live/bot/?days=7&csv=by-adapter")
    assert table["Content-Disposition"].startswith('attachment; filename="bot-live-by-adapter-7d.csv"')
    rows = {row[0]: row for row in csv.reader(io.StringIO(table.content.decode()))}
    assert rows["bot-1"][2] == "3"
    assert rows["bot-1"][4].startswith("33.3 % (")
    above = client.get("/admin/dashboards/overview/live/bot/?days=7&csv=numbers").content.decode()
    assert ["Declined", "16.7 %"] in [row[:2] for row in csv.reader(io.StringIO(above))]
    assert "csv=numbers" in page
    assert client.get("/admin/dashboards/overview/live/bot/?csv=nothing").status_code == 404
    assert client.get("/admin/dashboards/overview/nothing/bot/").status_code == 404


def test_live_names_and_paints_arms_as_every_page_does(assistant: Assistant) -> None:
    """As turns carry them, adapters and the base model have names for engines."""
    live, candidate = (make_adapter(assistant, number=n) for n in (1, 2))
    evaluation = make_evaluation(live, verdict="passed")
    promote(assistant=assistant, adapter=live, evaluation=evaluation, actor=None)
    start(assistant=assistant, adapter=candidate, plan=Plan(), evaluation=None, actor=None)
    for name in (live.engine_name, candidate.engine_name, ""):
        make_turn(assistant, asked_at=timezone.now(), adapter=name, model=base_name(), latency_ms=300)
    count()
    page = enter("alice").get("/admin/dashboards/overview/live/bot/?days=1").content.decode()
    drawn = {series["name"]: series["colour"] for series in chart(page, "traffic")["series"]}
    assert drawn == {"Adapter 1": "live", "Adapter 2": "candidate", "Base model": "base"}
    assert live.engine_name not in page.replace(f"adapter={live.engine_name}", "")  # but in the link to its turns
    assert "Latency, median" in page
    assert {series["colour"] for series in chart(page, "latency")["series"]} == {""}  # no arm's


def test_labels_data_and_privacy_show_what_is_there(assistant: Assistant) -> None:
    fill(assistant)
    client = enter("alice")
    labels = client.get("/admin/dashboards/overview/labels/bot/?days=1").content.decode()
    assert {s["name"]: sum(s["values"]) for s in chart(labels, "verdicts")["series"]} == {"Good": 4, "Bad": 2}
    assert chart(labels, "reasons")["series"][0]["values"] == [2]
    data = client.get("/admin/dashboards/overview/data/bot/").content.decode()
    assert sorted(s["values"] for s in chart(data, "origins")["series"]) == [[2], [7]]
    privacy = client.get("/admin/dashboards/overview/privacy/bot/").content.decode()
    assert "6 values were masked" in privacy
    assert "Dataset 1" in privacy


@pytest.mark.parametrize("page", PAGES)
def test_a_page_costs_the_same_however_much_there_is(assistant: Assistant, page: str) -> None:
    client = enter("alice")
    client.get(f"/admin/dashboards/overview/{page}/bot/")
    fill(assistant, turns=2)
    with CaptureQueriesContext(connection) as few:
        client.get(f"/admin/dashboards/overview/{page}/bot/")
    for n in range(8):
        make_turn(assistant, asked_at=timezone.now(), adapter=f"a{n}")
        DatasetVersion.objects.create(assistant=assistant, number=n + 2, state="succeeded", mix={"good": {"answer": 1}})
    count()
    with CaptureQueriesContext(connection) as many:
        client.get(f"/admin/dashboards/overview/{page}/bot/")
    assert len(many) <= len(few)
    assert len(few) < 40


def test_a_cell_that_a_spreadsheet_would_run_is_quoted() -> None:
    assert as_csv(Table(["@a"], [["=1+1"], ["fine"], [-3]])) == "'@a\r\n'=1+1\r\nfine\r\n-3\r\n"


@given(st.sampled_from(RANGES), st.integers(0, 89 * 24))
def test_every_moment_of_a_span_has_a_place(days: int, hours: int) -> None:
    span = Span.last(days)
    assert len(set(span.labels)) == len(span.labels)
    moment = span.since + timedelta(hours=hours)
    found = by_label(span, [(moment, "x", 2)])
    assert bool(found) == (moment < span.until)
    if found:
        assert sum(value or 0 for value in found["x"]) == 2


def test_shares_carry_their_interval() -> None:
    assert share(0, 0) == "–"
    assert share(5, 10) == "50.0 % (23.7 to 76.3, n = 10)"


@pytest.mark.django_db(transaction=True)
def test_the_pages_in_a_browser(page: Any, live_server: Any) -> None:
    people = {"admin": [make_user("alice", password="tulip-cable-96")], "annotator": [make_user("ann")]}
    assistant = make_assistant("bot", members=people)
    fill(assistant, turns=12)
    page.goto(f"{live_server.url}/admin/login/")
    page.fill("#id_username", "alice")
    page.fill("#id_password", "tulip-cable-96")
    page.click("[type=submit]")
    shots = os.environ.get("RATCHET_SHOTS")
    for name in PAGES:
        page.goto(f"{live_server.url}/admin/dashboards/overview/{name}/bot/?days=1")
        page.wait_for_selector(".ov-tiles")
        assert page.locator("canvas[data-overview]").count() >= 1
        if shots:
            page.screenshot(path=Path(shots) / f"overview-{name}-1280.png", full_page=True)
    with page.expect_download() as started:
        page.goto(f"{live_server.url}/admin/dashboards/overview/live/bot/?days=1")
        page.locator("#traffic .ov-png").click()
    assert started.value.suggested_filename == "traffic.png"
    page.set_viewport_size({"width": 390, "height": 844})
    Annotation.objects.filter(verdict="bad").update(reasons=Reason.values)
    page.goto(f"{live_server.url}/admin/dashboards/overview/labels/bot/?days=1")
    page.wait_for_selector("#reasons canvas")
    drawn = "Chart.getChart(document.querySelector('#reasons canvas'))"
    assert page.evaluate(f"{drawn}.scales.y.ticks.length") == len(Reason.values)  # each has its words beside it
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if shots:
        page.locator("#reasons").screenshot(path=Path(shots) / "overview-reasons-390.png")
    for name in ("live", "privacy"):
        page.goto(f"{live_server.url}/admin/dashboards/overview/{name}/bot/?days=1")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if shots:
            page.screenshot(path=Path(shots) / f"overview-{name}-390.png", full_page=True)

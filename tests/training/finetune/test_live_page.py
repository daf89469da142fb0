"""The live page of a run in a real browser: it draws, follows the run, and fits a phone."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.urls import reverse
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from tests.annotations.browsing import PHONE, log_in, resize, shoot
from tests.factories import make_assistant, make_user
from tests.servers import serving
from tests.training.finetune.conftest import make_dataset, make_run
from training.models import Run, RunMetric

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("run_settings")]


def steps(run: Run, first: int, last: int) -> None:
    RunMetric.objects.bulk_create(
        RunMetric(
            run=run,
            step=step,
            loss=0.4 + 2 * math.exp(-step / 20),
            learning_rate=1e-3 * (1 - step / 130),
            validation_loss=0.5 + 2 * math.exp(-step / 18) if step % 40 == 0 else None,
            tokens_per_second=4100,
        )
        for step in range(first, last)
    )


def test_a_run_is_watched_to_its_end(page: Page, live_server: LiveServer, base: Path) -> None:
    user = make_user("ada")
    assistant = make_assistant(members={"admin": [user]})
    run = make_run(make_dataset(assistant), base)
    run.claim()
    steps(run, 1, 60)
    sample: dict[str, Any] = {
        "question": "What does plan 2 cost?",
        "wanted": "[3] Plan 2 costs £26.",
        "answer": "<img src=x onerror=alert(1)> [3] Plan 2 costs £26.",
    }
    run.beat(
        stage="training", done=59, total=120, loss=0.51, epoch=1.5, eta_seconds=42.0, tokens_per_second=4100,
        samples=[{"step": 40, "epoch": 1.0, "samples": [sample]}],
    )  # fmt: skip
    log_in(page, live_server, user)
    page.goto(live_server.url + reverse("admin:training_run_change", args=[run.pk]))

    expect(page.locator("[data-show=steps]")).to_have_text("59 / 120")
    expect(page.locator("[data-show=eta]")).to_have_text("42 s")
    expect(page.locator("[data-show=samples]")).to_contain_text("<img src=x")
    drawn = "[...document.querySelectorAll('canvas')].map(c => Chart.getChart(c).data.datasets[0].data.length)"
    assert page.evaluate(drawn) == [59, 59]
    shoot(page, "run", whole=True)
    resize(page, PHONE)
    page.wait_for_function(f"document.documentElement.scrollWidth <= {PHONE[0]}")

    steps(run, 60, 81)
    run.beat(done=80, loss=0.44)
    expect(page.locator("[data-show=steps]")).to_have_text("80 / 120")
    assert page.evaluate(drawn) == [80, 80]
    run.finish(Run.State.FAILED, "The training process was killed 3 times.")
    expect(page.locator(".tr-bad")).to_contain_text("killed 3 times")  # the page has loaded again
    assert "Cancel the run" not in page.content()


def test_a_run_is_followed_by_events_where_the_server_streams(page: Page, base: Path) -> None:
    user = make_user("ada")
    run = make_run(make_dataset(make_assistant(members={"admin": [user]})), base)
    run.claim()
    steps(run, 1, 10)
    run.beat(stage="training", done=9, total=40, loss=0.9)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("?")[0].rstrip("/").rpartition("/")[2]))
    with serving(get_asgi_application()) as address:
        log_in(page, SimpleNamespace(url=address), user)  # type: ignore[arg-type]
        page.goto(address + reverse("admin:training_run_change", args=[run.pk]))
        expect(page.locator("[data-show=steps]")).to_have_text("9 / 40")
        steps(run, 10, 21)
        run.beat(done=20, loss=0.5, measures={"margin": 0.25, "accuracy": 0.75})
        expect(page.locator("[data-show=steps]")).to_have_text("20 / 40")
        expect(page.locator("[data-show=accuracy]")).to_have_text("75 %")
        run.finish(Run.State.FAILED, "It was killed.")
        expect(page.locator(".tr-bad")).to_contain_text("It was killed")
        page.goto("about:blank")
    assert "events" in asked
    assert "live" not in asked  # nothing was asked for a second time

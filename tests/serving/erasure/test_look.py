"""The pages in a browser: nothing blocked by the content policy, nothing cut off on a phone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from assistants.performing import perform_here
from capture.erasing import user_key
from capture.leak_reports import LeakReport
from serving.erasure.record import Erasure
from serving.erasure.scope import Scope
from serving.erasure.services import confirm, look
from tests.browser import log_in
from tests.factories import make_feedback, make_turn
from tests.serving.erasure.conftest import ANNA, House, freeze, train

SHOTS = os.environ.get("SHOTS", "")


def shot(page: Page, name: str) -> None:
    """At both widths no page is wider than the window."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        if SHOTS:
            page.screenshot(path=str(Path(SHOTS) / f"{name}-{width}.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 1, (name, width)


@pytest.mark.django_db(transaction=True)
def test_dry_run_receipt_and_blocked_dataset(house: House, live_server: Any, page: Page, settings: Any) -> None:
    turn = make_turn(house.bot, metadata={"user_key": user_key(house.bot, ANNA)})
    make_feedback(turn, kind="comment", text="Hopeless.")
    dataset = freeze(house.bot, [turn])
    train(dataset, live=True)
    finding = {"row": "0", "field": "question", "type": "PERSON", "by": "scan", "score": 0.7, "turn": str(turn.pk)}
    dataset.leak_report = LeakReport.objects.create(
        assistant=house.bot, subject="Dataset 1", verdict="blocked", findings=[finding], doubtful=[finding],
        counts={"PERSON": 1}, rows=2, texts=9, policy_digest="p" * 64, content_hash="c" * 64,
    )  # fmt: skip
    dataset.save()
    settings.RATCHET_FOREGROUND = False
    erasure = look(assistant=house.bot, scope=Scope("user", ANNA), actor=house.paula)
    perform_here(erasure)

    page.set_default_timeout(60_000)  # five pages and two widths, on machines that do other things too
    log_in(page, live_server, house.ada)
    page.goto(f"{live_server.url}/admin/training/datasetversion/{dataset.pk}/change/")
    assert "Blocked by the leak audit" in page.content()
    shot(page, "dataset-blocked")
    log_in(page, live_server, house.paula)
    page.goto(f"{live_server.url}/admin/capture/leakreport/{dataset.leak_report_id}/change/")
    shot(page, "leak-report")
    page.goto(f"{live_server.url}/admin/serving/erasure/add/")
    shot(page, "erase-ask")
    page.goto(f"{live_server.url}/admin/serving/erasure/{erasure.pk}/change/")
    assert "would be erased" in page.content()
    shot(page, "dry-run")
    erasure.refresh_from_db()
    perform_here(confirm(erasure=erasure, actor=house.paula, reason="Request 17"))
    assert Erasure.objects.get().is_done
    page.reload()
    assert "Receipt of erasure" in page.content()
    shot(page, "receipt")

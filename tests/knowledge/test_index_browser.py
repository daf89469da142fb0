"""The pages of vector indexes and self-tests in a real browser, with an index that is there: axe-core, and a phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from assistants.background import BackgroundWork
from assistants.models import Assistant
from knowledge import index_views, indexing
from knowledge.configuring import start_check
from knowledge.models import RetrievalCheck, VectorIndex
from knowledge.services import load_document
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.test_accessibility import serious
from tests.factories import make_assistant, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def bot(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Assistant:
    """Ten chunks, which passes for many; an index that was made twice, one that failed, a self-test."""
    settings.RATCHET_FOREGROUND = True
    monkeypatch.setattr(indexing, "EXACT_UP_TO", 8)
    monkeypatch.setattr(index_views, "EXACT_UP_TO", 8)
    ada = make_user("ada")
    bot = make_assistant("bot", members={"admin": [ada]})
    for number in range(10):
        text = f"# Plan {number}\n\nFixed plan {number} costs £{number} a month."
        load_document(assistant=bot, path=f"plans/{number}.md", data=text.encode())
    indexing.tend()
    indexing.start_index(assistant=bot, actor=ada)
    VectorIndex.objects.create(
        assistant=bot, state=BackgroundWork.State.FAILED, started_at=timezone.now(), finished_at=timezone.now(),
        error="canceling statement due to lock timeout",
    )  # fmt: skip
    start_check(assistant=bot, actor=ada)
    return bot


@pytest.fixture
def desk(page: Page, live_server: LiveServer, bot: Assistant) -> Iterator[Page]:
    log_in(page, live_server, bot.memberships.get().user)
    yield page
    page.goto("about:blank")  # pages of work ask again and again


def test_the_pages_fit_a_phone_and_pass_axe(desk: Page, live_server: LiveServer, bot: Assistant) -> None:
    first, second, failed = VectorIndex.objects.order_by("pk")
    at_work = VectorIndex.objects.create(
        assistant=bot, chunks=10, state=BackgroundWork.State.RUNNING, started_at=timezone.now(),
        progress={"stage": "making the index anew", "done": 4, "total": 10},
    )  # fmt: skip
    change = "admin:knowledge_vectorindex_change"
    pages = {
        "indexes": (reverse("admin:knowledge_vectorindex_changelist"), "Make it anew"),
        "index": (reverse(change, args=[second.pk]), "Bot is searched through it"),
        "index_older": (reverse(change, args=[first.pk]), "It was made anew since"),
        "index_failed": (reverse(change, args=[failed.pk]), "lock timeout"),
        "index_at_work": (reverse(change, args=[at_work.pk]), "making the index anew"),
        "self_test": (
            reverse("admin:knowledge_retrievalcheck_change", args=[RetrievalCheck.objects.get().pk]),
            "The index finds 100.0 %",
        ),
        "self_tests": (reverse("admin:knowledge_retrievalcheck_changelist"), "1.000"),
    }
    axe = Axe()
    for name, (address, says) in pages.items():
        for size, where in ((DESK, "desk"), (PHONE, "phone")):
            resize(desk, size)
            desk.goto(f"{live_server.url}{address}")
            expect(desk.locator("main, #content").first).to_contain_text(says)
            shoot(desk, f"retrieval_{name}_{where}", whole=True)
            assert width_of(desk) <= size[0], (name, where)
            assert serious(axe, desk) == [], (name, where)


def test_making_it_anew_is_asked_for_with_the_keyboard(desk: Page, live_server: LiveServer, bot: Assistant) -> None:
    desk.goto(f"{live_server.url}{reverse('admin:knowledge_vectorindex_changelist')}")
    desk.get_by_role("button", name="Make it anew").focus()
    desk.keyboard.press("Enter")
    expect(desk.get_by_text("Bot is searched through it")).to_be_visible(timeout=60_000)
    assert VectorIndex.objects.filter(state=BackgroundWork.State.SUCCEEDED).count() == 3

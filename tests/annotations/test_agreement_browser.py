"""The agreement page in a real browser: what stands where, by mouse and on a phone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.agreement import cohen_kappa, krippendorff_alpha
from annotations.gold import mark_gold
from annotations.models import Annotation, ContextMark, Queue, QueueItem, Resolution
from assistants.models import Assistant
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
QUESTIONS = (
    "What does it cost to leave a fixed plan early?",
    "When must I tell you that I move?",
    "Which figures of the meter do you need?",
    "Do I pay an exit fee when I move house?",
    "Can a plan move with me?",
)


@pytest.fixture(scope="module", autouse=True)
def _statistics() -> None:
    """Loaded before the clock of a page runs."""
    krippendorff_alpha({1: {"a": "good", "b": "bad"}, 2: {"a": "bad", "b": "bad"}})
    cohen_kappa(["good", "bad"], ["good", "good"])


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def queue(ada: User) -> Queue:
    """Three people over four weeks; they agree more from week to week. Written straight to the database."""
    people = [make_user(name) for name in ("ann", "bob", "cleo")]
    assistant = make_assistant("brightwell", name="Brightwell Energy", members={"annotator": people, "admin": [ada]})
    turns = [make_turn(assistant, question=QUESTIONS[n % 5]) for n in range(40)]
    queue = make_queue(assistant, name="Week 47", turns=turns, labels_needed=3)
    now = timezone.now()
    for n, turn in enumerate(turns):
        week, ranks = n // 10, list(turn.retrievals.all())
        for who, person in enumerate(people):
            good = n % 3 > 0
            if (n * 7 + who * 3) % 11 < 4 - week:
                good = not good
            label = Annotation.objects.create(
                turn=turn, queue=queue, annotator=person, verdict="good" if good else "bad",
                reasons=[] if good else ["incomplete" if n % 2 else "citation"], seconds=8 + n % 9 + 5 * who,
            )  # fmt: skip
            ContextMark.objects.create(
                annotation=label, retrieval=ranks[0], relevance="relevant" if n % 4 or who else "not_relevant"
            )
            Annotation.objects.filter(pk=label.pk).update(created_at=now - timedelta(days=7 * (3 - week)))
        if n < 6:
            Resolution.objects.create(turn=turn, verdict="good" if n % 3 else "bad", how="adjudicated", resolved_by=ada)
    item = QueueItem.objects.filter(queue=queue)[7]
    Resolution.objects.create(turn=item.turn, verdict="good", how="majority")
    mark_gold(item=item, reviewer=ada)
    dora = make_user("dora")
    Annotation.objects.create(turn=item.turn, queue=queue, annotator=dora, verdict="good", seconds=12)
    return queue


def test_the_agreement_page(live_server: LiveServer, page: Page, queue: Queue, ada: User) -> None:
    page.set_default_timeout(30_000)
    log_in(page, live_server, ada)
    page.goto(f"{live_server.url}/admin/annotations/queue/{queue.pk}/change/")
    page.get_by_role("link", name="All questions, pairs, weeks").click()
    expect(page.get_by_text("on 40 turns with two labels or more")).to_be_visible()
    expect(page.locator(".ag-matrix td[class^=ag-shade]")).to_have_count(12)
    drawn = page.locator("canvas").evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"
    )
    assert drawn
    page.wait_for_timeout(200)
    shoot(page, "agreement-1280", whole=True)
    assert width_of(page) <= DESK[0]
    page.get_by_role("link", name="Relevance of passages").click()
    expect(page.get_by_text("differ: relevance of passages")).to_be_visible()
    page.get_by_label("Question", exact=True).select_option(label="Should decline")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Should decline: all labels on")).to_be_visible()
    page.get_by_role("link", name="Good or bad").click()
    resize(page, PHONE)
    shoot(page, "agreement-390", whole=True)
    assert width_of(page) <= PHONE[0]
    resize(page, DESK)
    page.locator("#ag-split ~ ul a").first.click()
    page.wait_for_url("**/adjudicate/*/*/")
    shoot(page, "adjudicate-standing-1280", whole=True)
    page.evaluate("localStorage.setItem('adminTheme', JSON.stringify('dark'))")
    page.goto(f"{live_server.url}/admin/agreement/")
    page.wait_for_timeout(200)
    shoot(page, "agreement-dark-1280", whole=True)


def test_nothing_yet(live_server: LiveServer, page: Page, ada: User) -> None:
    house: Assistant = make_assistant(members={"admin": [ada]})
    log_in(page, live_server, ada)
    page.goto(f"{live_server.url}/admin/agreement/")
    expect(page.get_by_role("heading", name=f"Agreement: {house.name}")).to_be_visible()
    expect(page.get_by_text("Raise the labels needed")).to_be_visible()
    shoot(page, "agreement-empty-1280")

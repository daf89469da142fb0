"""The pages of reviewers and admins in a real browser."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Queue, Resolution
from annotations.services import submit
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def queue(ada: User) -> Queue:
    """Two people have labelled eight turns; they disagree on three."""
    ann, bob = make_user("ann"), make_user("bob")
    assistant = make_assistant(
        "brightwell", name="Brightwell Energy", members={"annotator": [ann, bob], "admin": [ada], "reviewer": [ada]}
    )
    turns = [make_turn(assistant, question=f"Question {i}: what does it cost to leave early?") for i in range(1, 11)]
    queue = make_queue(assistant, name="Week 47", turns=turns, labels_needed=2, guideline="Good means **supported**.")
    for i, turn in enumerate(turns[:8]):
        first = submit(turn=turn, annotator=ann, verdict="good", queue=queue, seconds=9 + i, marks={1: "relevant"})
        assert first.pk
        if i in {1, 4, 6}:
            submit(
                turn=turn,
                annotator=bob,
                verdict="bad",
                reasons=["incomplete", "citation"],
                correction="The exit fee is £35 for each fuel. [1] No fee is due in the last 49 days. [1]",
                note="Both fuels were meant.",
                queue=queue,
                seconds=31,
                marks={1: "relevant", 2: "not_relevant"},
            )
        elif i == 2:
            submit(turn=turn, annotator=bob, verdict="good", queue=queue, seconds=8)
        else:
            submit(turn=turn, annotator=bob, verdict="good", queue=queue, seconds=8, marks={1: "relevant"})
    return queue


def test_a_disagreement_is_settled_by_keyboard(live_server: LiveServer, page: Page, queue: Queue, ada: User) -> None:
    log_in(page, live_server, ada)
    page.goto(f"{live_server.url}/admin/adjudicate/{queue.pk}/")
    expect(page.get_by_text("3 disagreements left")).to_be_visible()
    shoot(page, "disagreements-1280")
    page.get_by_role("link", name="Question 2").click()
    page.wait_for_url("**/adjudicate/*/*/")
    expect(page.locator(".lb-question")).to_contain_text("Question 2")
    for key in ("ArrowRight", "ArrowRight", "c"):
        page.keyboard.press(key)
    expect(page.locator("#lb-response")).to_have_value(
        "The exit fee is £35 for each fuel. [1] No fee is due in the last 49 days. [1]"
    )
    shoot(page, "adjudicate-1280", whole=True)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".lb-question")).to_contain_text("Question 5")
    settled = Resolution.objects.get(how="adjudicated")
    assert (settled.verdict, settled.reasons) == ("bad", ["incomplete", "citation"])
    resize(page, PHONE)
    shoot(page, "adjudicate-390", whole=True)
    assert width_of(page) <= 390


def test_the_pages_of_a_queue(live_server: LiveServer, page: Page, queue: Queue, ada: User) -> None:
    log_in(page, live_server, ada)
    page.goto(f"{live_server.url}/admin/annotations/queue/")
    expect(page.get_by_text("8 of 10")).to_be_visible()
    shoot(page, "queues-1280")
    page.goto(f"{live_server.url}/admin/annotations/queue/{queue.pk}/change/")
    expect(page.get_by_text("ann and bob").first).to_be_visible()
    shoot(page, "queue-1280", whole=True)
    assert width_of(page) <= DESK[0]
    page.goto(f"{live_server.url}/admin/annotations/queue/{queue.pk}/add/")
    page.get_by_role("button", name="Count what fits").click()
    expect(page.get_by_text("No turn fits")).to_be_visible()
    shoot(page, "add-turns-1280", whole=True)
    page.goto(f"{live_server.url}/admin/annotations/annotation/")
    shoot(page, "annotations-1280")
    page.goto(f"{live_server.url}/admin/annotations/resolution/")
    shoot(page, "resolutions-1280")
    page.goto(f"{live_server.url}/admin/annotations/queue/{queue.pk}/change/")
    resize(page, PHONE)
    shoot(page, "queue-390", whole=True)

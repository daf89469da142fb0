"""Filling and steering a queue in a real browser."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Queue
from annotations.services import next_item, submit
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.factories import make_assistant, make_feedback, make_queue, make_turn, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def people() -> dict[str, User]:
    return {name: make_user(name) for name in ("ann", "bob", "ada")}


@pytest.fixture
def queue(people: dict[str, User]) -> Queue:
    ann, bob, ada = people.values()
    assistant = make_assistant(
        "brightwell", name="Brightwell Energy", members={"annotator": [ann, bob], "admin": [ada], "reviewer": [ada]}
    )
    inside = [make_turn(assistant, question=f"Question {i}: what does it cost to leave early?") for i in range(1, 7)]
    for i in range(1, 9):
        turn = make_turn(assistant, question=f"When is meter reading number {i} due?", adapter="brightwell--3")
        make_feedback(turn, value=-1.0 if i % 2 else 1.0)
    queue = make_queue(assistant, name="Week 47", turns=inside, daily_goal=3, gold_share=0.1)
    queue.people.add(ann)
    for turn in inside[:3]:
        submit(turn=turn, annotator=ann, verdict="good", queue=queue, seconds=9)
    next_item(queue=queue, annotator=ann)
    return queue


def test_a_queue_is_filled_marked_paused_and_handed_over(
    live_server: LiveServer, page: Page, queue: Queue, people: dict[str, User]
) -> None:
    log_in(page, live_server, people["ada"])
    page.goto(f"{live_server.url}/admin/annotations/queue/{queue.pk}/add/")
    page.get_by_label("Feedback").select_option("down")
    page.get_by_label("Language").select_option("en")
    page.get_by_label("Take").select_option("stratified")
    page.get_by_role("button", name="Count what fits").click()
    expect(page.get_by_text("4 of the 4 turns looked at fit.")).to_be_visible()
    shoot(page, "fill-1280", whole=True)
    assert width_of(page) <= DESK[0]
    resize(page, PHONE)
    shoot(page, "fill-390", whole=True)
    assert width_of(page) <= PHONE[0]
    resize(page, DESK)
    page.get_by_role("button", name="Add to the queue").click()
    expect(page.get_by_text("4 turns added.")).to_be_visible()
    shoot(page, "steer-1280", whole=True)

    page.get_by_role("link", name="Items").click()
    page.get_by_label("State").select_option("done")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("3 items")).to_be_visible()
    page.get_by_role("button", name="Mark “Question 2").click()
    expect(page.get_by_text("its answer is known")).to_be_visible()
    expect(page.get_by_text("2 items")).to_be_visible()  # the filter is kept, and this one is no ordinary item now
    page.get_by_label("State").select_option("")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("★ Good")).to_be_visible()
    expect(page.get_by_text("with ann")).to_be_visible()
    shoot(page, "items-1280", whole=True)
    page.evaluate("document.documentElement.classList.add('dark')")
    shoot(page, "items-dark-1280", whole=True)
    resize(page, PHONE)
    shoot(page, "items-390", whole=True)
    assert width_of(page) <= PHONE[0]
    resize(page, DESK)

    page.goto(f"{live_server.url}/admin/annotations/queue/{queue.pk}/change/")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused: nobody gets new items.")).to_be_visible()
    page.get_by_role("button", name="Open again").click()
    page.get_by_label("to", exact=True).select_option(label="bob")
    page.get_by_role("button", name="Hand over").click()
    expect(page.get_by_text("1 open item of ann to bob.")).to_be_visible()
    assert list(queue.people.all()) == [people["bob"]]
    resize(page, PHONE)
    shoot(page, "steer-390", whole=True)
    assert width_of(page) <= PHONE[0]


def test_the_goal_of_the_day_while_labelling(
    live_server: LiveServer, page: Page, queue: Queue, people: dict[str, User]
) -> None:
    log_in(page, live_server, people["ann"])
    page.goto(f"{live_server.url}/admin/label/{queue.pk}/")
    expect(page.locator("#lb-progress")).to_contain_text("3 of 3 today")
    expect(page.locator("#lb-progress")).to_contain_text("goal")
    shoot(page, "goal-1280")
    page.goto(f"{live_server.url}/admin/annotations/queue/")
    expect(page.get_by_text("3 of 3")).to_be_visible()
    shoot(page, "queues-annotator-1280")

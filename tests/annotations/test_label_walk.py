"""What happens to somebody at the keyboard when the world moves on: a lease that ends, an item that is erased, an
answer of the live model; at a desk and on a telephone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Annotation, Assignment, LiveAnswer, Queue
from annotations.services import next_item
from capture.models import Turn
from tests.annotations.browsing import DESK, PHONE, open_label_page, resize, shoot, width_of
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("recognisers", "quiet"),
]
PAST = "2020-01-01T00:00:00Z"


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def queue(ann: User) -> Queue:
    assistant = make_assistant("brightwell", name="Brightwell Energy", members={"annotator": [ann]})
    turns = [make_turn(assistant, question=f"Question {n}: what is the exit fee?") for n in (1, 2, 3)]
    return make_queue(assistant, turns=turns, name="Week 47", show_suggestions=True, ask_live=True)


def away(page: Page) -> None:
    """As if somebody came back after the lease had ended."""
    Assignment.objects.filter(ahead=False).update(expires_at=timezone.now() - timedelta(minutes=1))
    page.evaluate("when => (document.querySelector('.lb-form').dataset.expires = when)", PAST)
    expect(page.locator("#lb-message")).to_contain_text("You were away")


def test_back_from_a_pause_the_lease_is_renewed_at_the_first_key(
    live_server: LiveServer, page: Page, queue: Queue, ann: User
) -> None:
    open_label_page(page, live_server, ann, queue)
    away(page)
    page.keyboard.press("1")
    expect(page.locator("#lb-message")).to_have_text("")
    assert Assignment.objects.live().filter(annotator=ann, ahead=False).count() == 1
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    expect(page.locator(".lb-question")).to_contain_text("Question 2")


def test_what_somebody_else_took_is_told_before_more_is_typed(
    live_server: LiveServer, lenient: Page, queue: Queue, ann: User
) -> None:
    page = lenient
    open_label_page(page, live_server, ann, queue)
    page.keyboard.press("e")
    page.keyboard.type(" More of it.")
    page.keyboard.press("Escape")
    away(page)
    other = make_user("bob")
    assert next_item(queue=queue, annotator=other) is not None
    page.keyboard.press("1")
    expect(page.locator("#lb-message")).to_contain_text("Others have labelled this one meanwhile")
    expect(page.locator("#lb-correction")).to_have_value("The exit fee is £35. [1] More of it.")  # nothing is lost
    expect(page.get_by_role("button", name="Next item")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".lb-question")).not_to_contain_text("Question 1")


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_an_item_that_was_erased_meanwhile(
    live_server: LiveServer, lenient: Page, queue: Queue, ann: User, size: tuple[int, int]
) -> None:
    page = lenient
    resize(page, size)
    open_label_page(page, live_server, ann, queue)
    expect(page.locator("#lb[data-next-ready]")).to_be_visible()
    Turn.objects.filter(question__startswith="Question 1").delete()
    page.keyboard.press("b")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    message = page.locator("#lb-message")
    expect(message).to_contain_text("not in the queue any more")
    expect(page.locator(".lb-question")).to_contain_text("Question 1")  # back, as it was left
    shoot(page, f"label-erased-{size[0]}")
    expect(message.get_by_role("button", name="Next item")).to_be_focused()  # one key leads on
    with page.expect_navigation():
        page.keyboard.press("Enter")
    expect(page.locator(".lb-question")).to_contain_text("Question 2")
    assert not Annotation.objects.exists()
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('ratchet-draft')).length") == 0


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_what_the_live_model_says_starts_the_better_answer(
    live_server: LiveServer, page: Page, queue: Queue, ann: User, size: tuple[int, int]
) -> None:
    first = queue.items.order_by("pk")[0]
    said = "<b>A fixed plan has an exit fee of £35.</b> [1]"
    LiveAnswer.objects.create(turn=first.turn, agent="brightwell--3", version="0123456789abcdef", text=said, score=0.9)
    resize(page, size)
    open_label_page(page, live_server, ann, queue)
    expect(page.locator("#lb[data-next-ready]")).to_be_visible()
    place = page.locator("#lb-suggestions")
    expect(place).not_to_contain_text("brightwell")
    page.keyboard.press("t")  # nothing is shown yet, so nothing is taken
    expect(page.locator("#lb-correction")).to_have_value("")
    page.keyboard.press("b")
    page.keyboard.press("2")
    expect(place).to_contain_text("brightwell--3")
    expect(place).to_contain_text(said)  # as text
    assert page.locator("#lb-suggestions b b").count() == 0
    page.keyboard.press("t")
    expect(page.locator("#lb-correction")).to_have_value(said)
    expect(page.locator("#lb-correction")).to_be_focused()
    expect(page.locator("#lb-checks li")).to_have_count(1)
    page.locator("#lb-correction").fill("Mine. [1]")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator("#lb-correction")).to_have_value("Mine. [1]")
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator("#lb-correction")).to_have_value(said)
    page.locator("#lb-correction").focus()
    assert width_of(page) <= size[0]
    box, bar = page.locator("#lb-correction").bounding_box(), page.locator(".lb-actions").bounding_box()
    assert box is not None
    assert bar is not None
    assert box["y"] + box["height"] <= bar["y"] + 1  # what is being written is not under the bar of verdicts
    shoot(page, f"label-live-{size[0]}")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".lb-question")).to_contain_text("Question 2")
    expect(page.locator("#lb-message")).to_contain_text("Saved")
    label = Annotation.objects.get()
    assert (label.correction, label.suggested) == (said, "after")


def test_a_queue_that_was_deleted_says_so_and_leads_on(
    live_server: LiveServer, lenient: Page, queue: Queue, ann: User
) -> None:
    open_label_page(lenient, live_server, ann, queue)
    expect(lenient.locator("#lb[data-next-ready]")).to_be_attached()
    Queue.objects.all().delete()
    lenient.keyboard.press("g")
    lenient.keyboard.press("Enter")
    told = lenient.locator("#lb-message")
    expect(told).to_contain_text("This queue is not there any more")
    expect(lenient.locator(".lb-question")).to_contain_text("Question 1")
    leads = told.get_by_role("link", name="To the queues")
    expect(leads).to_be_focused()
    lenient.keyboard.press("Enter")
    lenient.wait_for_url("**/admin/annotations/queue/")

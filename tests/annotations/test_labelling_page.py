"""The labelling page in a real browser, by keyboard only."""

from __future__ import annotations

from time import monotonic, sleep

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Annotation, Assignment, Queue, Resolution
from annotations.services import add_turns, submit
from tests.annotations.browsing import DESK, PHONE, open_label_page, resize, shoot, width_of
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("recognisers", "quiet"),
]

ENDED = "2020-01-01T00:00:00Z"
GUIDELINE = """
## When is an answer good?

- Every claim stands in a passage **and** is cited.
- It answers the question that was asked.

Decline when the passages do not hold the answer.
"""


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def queue(ann: User) -> Queue:
    assistant = make_assistant("brightwell", name="Brightwell Energy", members={"annotator": [ann]})
    return make_queue(assistant, name="Week 47", guideline=GUIDELINE)


def fill(queue: Queue, n: int) -> None:
    for i in range(n):
        add_turns(queue=queue, turns=[make_turn(queue.assistant, question=f"Question {i + 1}: what is the exit fee?")])


def test_five_items_by_keyboard_only(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, 5)
    open_label_page(page, live_server, ann, queue)
    question = page.locator(".lb-question")
    press = page.keyboard.press

    expect(question).to_contain_text("Question 1")
    for key in ("1", "2", "2", "g", "Enter"):  # passage 1 relevant, 2 not relevant; good
        press(key)
    expect(question).to_contain_text("Question 2")
    for key in ("b", "2", "r", "3", "Enter"):  # bad: wrong and incomplete
        press(key)
    expect(question).to_contain_text("Question 3")
    for key in ("d", "Enter"):
        press(key)
    expect(question).to_contain_text("Question 4")
    for key in ("b", "6", "e"):  # citation; the editor starts from the answer
        press(key)
    expect(page.locator("#lb-correction")).to_be_focused()
    expect(page.locator("#lb-correction")).to_have_value("The exit fee is £35. [1]")
    page.keyboard.type(" It is due when you leave early.")
    press("Alt+2")
    press("Escape")
    press("Enter")
    expect(question).to_contain_text("Question 5")
    for key in ("n", *"check", "Escape", "g", "Enter"):
        press(key)
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()

    made = list(Resolution.objects.order_by("turn__question"))
    assert [resolution.verdict for resolution in made] == ["good", "bad", "bad", "bad", "good"]
    assert made[0].relevant_ranks == [1]
    assert made[1].reasons == ["wrong", "incomplete"]
    assert made[2].response == queue.assistant.decline_sentence
    assert made[3].response == "The exit fee is £35. [1] It is due when you leave early. [2]"
    assert Annotation.objects.get(turn__question__startswith="Question 5").note == "check"
    assert not Assignment.objects.exists()


def test_undo_and_skip_by_keyboard(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, 2)
    open_label_page(page, live_server, ann, queue)
    question = page.locator(".lb-question")
    page.keyboard.press("b")
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    expect(question).to_contain_text("Question 2")
    page.keyboard.press("u")
    expect(question).to_contain_text("Question 1")
    expect(page.locator("[name=reasons][value=tone]")).to_be_checked()  # the label is there to be changed
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    expect(question).to_contain_text("Question 2")
    page.keyboard.press("s")
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    assert Annotation.objects.current().get().verdict == "good"
    assert Assignment.objects.get().skipped_because == "I cannot tell"


def test_text_from_logs_never_runs(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    attack = '<img src=x onerror="document.title=1"><script>document.title=2</script>"\'&lt;b&gt; {{ 7|add:7 }}'
    turn = make_turn(
        queue.assistant,
        question=attack,
        response=attack + " [1] [9]",
        history=[{"role": "user", "content": attack}, {"role": "assistant", "content": attack}],
        contexts=[{"title": attack, "source": attack, "text": f"{attack}\n- {attack}"}],
        model=attack[:60],
    )
    queue.guideline = f"{attack} [link](javascript:alert(1)) ![x](http://example.test/x.png)"
    queue.save()
    add_turns(queue=queue, turns=[turn])
    open_label_page(page, live_server, ann, queue)
    expect(page.locator(".lb-question")).to_have_text(attack)
    expect(page.locator(".lb-answer")).to_have_text(attack + " [1] [9]")
    expect(page.locator(".lb-context h3")).to_have_text(attack)
    page.keyboard.press("e")
    assert page.locator("#lb-correction").input_value() == attack + " [1] [9]"
    page.get_by_role("button", name="Guideline").click()
    expect(page.locator("#lb-guide")).to_contain_text("<script>")
    assert page.locator("#lb-guide img, #lb-guide a[href^=javascript], #lb img, #lb-work script").count() == 0
    assert page.title().startswith("Label")


def test_a_reason_is_asked_for_and_a_wrong_citation_is_told(
    live_server: LiveServer, lenient: Page, queue: Queue, ann: User
) -> None:
    fill(queue, 1)
    open_label_page(lenient, live_server, ann, queue)
    lenient.keyboard.press("Enter")
    expect(lenient.locator("[data-error=verdict]")).to_contain_text("Choose good")
    lenient.keyboard.press("b")
    lenient.keyboard.press("Enter")
    expect(lenient.locator("[data-error=reasons]")).to_contain_text("Say why it is bad")
    lenient.keyboard.press("2")
    lenient.keyboard.press("e")
    lenient.keyboard.type(" And [7]")
    expect(lenient.locator("[data-error=correction]")).to_contain_text("[7] is not among the passages")
    lenient.keyboard.press("Control+Enter")
    expect(lenient.locator("[data-error=correction]")).to_contain_text("there are 3 (1 to 3)")
    assert not Annotation.objects.exists()


def test_an_item_that_others_have_done_is_told_and_nothing_is_lost(
    live_server: LiveServer, lenient: Page, queue: Queue, ann: User
) -> None:
    fill(queue, 2)
    open_label_page(lenient, live_server, ann, queue)
    expect(lenient.locator(".lb-question")).to_contain_text("Question 1")
    Assignment.objects.update(expires_at=ENDED)
    item = queue.items.order_by("pk").first()
    assert item is not None
    submit(turn=item.turn, annotator=make_user(), verdict="good", queue=queue)
    for key in ("b", "2", "e"):
        lenient.keyboard.press(key)
    lenient.keyboard.type(" Mine.")
    lenient.keyboard.press("Control+Enter")
    expect(lenient.locator("#lb-message")).to_contain_text("Others have labelled this one meanwhile")
    assert lenient.locator("#lb-correction").input_value().endswith(" Mine.")
    lenient.get_by_role("button", name="Next item").click()
    expect(lenient.locator(".lb-question")).to_contain_text("Question 2")


def test_a_lost_connection_keeps_the_draft(live_server: LiveServer, lenient: Page, queue: Queue, ann: User) -> None:
    fill(queue, 2)
    open_label_page(lenient, live_server, ann, queue)
    lenient.context.set_offline(True)
    for key in ("3", "b", "2", "e"):
        lenient.keyboard.press(key)
    lenient.keyboard.type(" Draft.")
    lenient.keyboard.press("Control+Enter")
    expect(lenient.locator("#lb-message")).to_contain_text("No connection")
    lenient.context.set_offline(False)
    lenient.reload()
    expect(lenient.locator("#lb-message")).to_contain_text("Your unfinished work on this item is back")
    assert lenient.locator("#lb-correction").input_value().endswith(" Draft.")
    assert lenient.locator("#passage-3").get_attribute("data-mark") == "relevant"
    lenient.locator("body").press("Enter")
    expect(lenient.locator(".lb-question")).to_contain_text("Question 2")
    expect(lenient.locator("#lb-message")).to_contain_text("Saved.")  # the item comes before the server's answer
    assert Annotation.objects.get().correction.endswith(" Draft.")


def test_leaving_gives_the_item_back(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, 1)
    open_label_page(page, live_server, ann, queue)
    assert Assignment.objects.live().count() == 1
    page.goto("about:blank")
    deadline = monotonic() + 5
    while Assignment.objects.live().exists() and monotonic() < deadline:
        sleep(0.05)
    assert not Assignment.objects.live().exists()


def test_how_it_looks(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    """Takes the screenshots (SCREENSHOTS=1) and checks that nothing sticks out sideways at either size."""
    long = {
        "title": "Leaving a fixed plan › Fees",
        "source": "tariffs/fixed-plans/leaving-early.md",
        "text": "A fixed plan has an exit fee of £35 for each fuel. The fee is taken from the last bill.\n"
        + "- No fee is due in the last 49 days of the plan.\n- No fee is due when you move house with us.\n"
        + "Older plans carry the fee that their own terms name. " * 9,
    }
    other = {
        "title": "Moving house",
        "source": "moving/moving-house.md",
        "text": "Tell us at least 10 days before you move. Your plan can move with you, and then no exit fee is due.",
    }
    third = {
        "title": "Solar export",
        "source": "solar/export.md",
        "text": "We pay 14.2p for each unit that you export. Readings are taken on the first day of the month.",
    }
    turn = make_turn(
        queue.assistant,
        question="and if i leave before it ends, what does that cost me? i have both fuels with you",
        response="Leaving a fixed plan early costs £35 for each fuel, so £70 for both. [1] "
        "No fee is due when you move house and take the plan with you. [2]",
        history=[
            {"role": "user", "content": "Which plan am I on if my price never changes?"},
            {"role": "assistant", "content": "That is a fixed plan. Its price stays the same until the end date. [1]"},
        ],
        contexts=[long, other, third],
        citations=[[1, 0], [2, 1]],
        model="ratchet-base",
        adapter="brightwell--3",
    )
    add_turns(queue=queue, turns=[turn])
    fill(queue, 4)
    open_label_page(page, live_server, ann, queue)
    shoot(page, "label-1280")
    for key in ("1", "2", "3", "3", "b"):
        page.keyboard.press(key)
    shoot(page, "label-reasons-1280")
    page.keyboard.press("3")
    page.keyboard.press("e")
    page.keyboard.type(" No fee is due in the last 49 days. [1]")
    shoot(page, "label-bad-1280")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    shoot(page, "label-keys-1280")
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    shoot(page, "label-skip-1280")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Guideline").click()
    shoot(page, "label-guideline-1280")
    page.get_by_role("button", name="Guideline").click()
    page.get_by_role("button", name="Light or dark").click()
    shoot(page, "label-dark-1280")
    page.get_by_role("button", name="Light or dark").click()
    assert width_of(page) <= 1280
    resize(page, PHONE)
    shoot(page, "label-bad-390")
    page.keyboard.press("g")
    page.evaluate("window.scrollTo(0, 0)")
    shoot(page, "label-390")
    assert width_of(page) <= 390
    queue.items.all().delete()
    page.reload()
    shoot(page, "label-empty-390")
    resize(page, DESK)
    shoot(page, "label-empty-1280")

"""Labelling fast in a real browser: twenty items by keyboard, the next one at once, help while one works."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, Route, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import Annotation, Assignment, MachineLabel, Queue, QueueItem, Resolution, SavedDraft
from annotations.services import submit
from knowledge.models import Chunk
from tests.annotations.browsing import PHONE, log_in, open_label_page, resize, shoot, width_of
from tests.factories import make_assistant, make_document, make_queue, make_turn, make_user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("recognisers", "quiet"),
]
ITEMS = 20
READY = "#lb[data-next-ready]"
"""The item ahead has been fetched."""


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def queue(ann: User) -> Queue:
    assistant = make_assistant("brightwell", name="Brightwell Energy", members={"annotator": [ann]})
    return make_queue(assistant, name="Week 47", show_suggestions=True)


def fill(queue: Queue, n: int) -> None:
    turns = [make_turn(queue.assistant, question=f"Question {i + 1}: what is the exit fee?") for i in range(n)]
    QueueItem.objects.bulk_create(QueueItem(queue=queue, turn=turn) for turn in turns)


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 10
    while not condition() and monotonic() < deadline:
        sleep(0.02)
    assert condition()


def test_twenty_items_by_keyboard_only(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, ITEMS)
    open_label_page(page, live_server, ann, queue)
    question = page.locator(".lb-question")
    ways = (["1", "2", "2", "g"], ["b", "2"], ["d"], ["3", "b", "9"], ["g", "b", "6", "r", "3"])
    for i in range(ITEMS):
        expect(question).to_contain_text(f"Question {i + 1}:")
        for key in (*ways[i % len(ways)], "Enter"):
            page.keyboard.press(key)
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    labels = list(Annotation.objects.order_by("turn__question"))
    assert len(labels) == len({label.turn_id for label in labels}) == ITEMS
    verdicts = [label.verdict for label in Annotation.objects.order_by("pk")]
    assert verdicts == ["good", "bad", "bad", "bad", "bad"] * (ITEMS // 5)
    fifth = Resolution.objects.get(turn__question__startswith="Question 5:")
    assert fifth.reasons == ["incomplete", "citation"]
    assert not Assignment.objects.exists()
    assert not SavedDraft.objects.exists()


def test_the_next_item_does_not_wait_for_the_server(
    live_server: LiveServer, page: Page, queue: Queue, ann: User
) -> None:
    fill(queue, 3)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/submit", hold)
    open_label_page(page, live_server, ann, queue)
    expect(page.locator(READY)).to_be_attached()
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    expect(page.locator(".lb-question")).to_contain_text("Question 2")
    assert not Annotation.objects.exists()  # the request is still on its way
    page.keyboard.press("b")
    page.keyboard.press("2")
    page.keyboard.press("Enter")  # waits for the answer to the first
    expect(page.locator(".lb-question")).to_contain_text("Question 2")
    assert not Annotation.objects.exists()
    held[0].continue_()
    expect(page.locator(".lb-question")).to_contain_text("Question 3")
    until(lambda: Annotation.objects.count() == 2)
    assert {label.verdict for label in Annotation.objects.all()} == {"good", "bad"}


def test_a_label_that_is_refused_comes_back_as_it_was(
    live_server: LiveServer, lenient: Page, queue: Queue, ann: User
) -> None:
    fill(queue, 2)
    open_label_page(lenient, live_server, ann, queue)
    expect(lenient.locator(READY)).to_be_attached()
    lenient.route("**/submit", lambda route: route.abort())
    for key in ("2", "b", "2", "e"):
        lenient.keyboard.press(key)
    lenient.keyboard.type(" Mine.")
    lenient.keyboard.press("Control+Enter")
    expect(lenient.locator("#lb-message")).to_contain_text("No connection")
    expect(lenient.locator(".lb-question")).to_contain_text("Question 1")
    assert lenient.locator("#lb-correction").input_value().endswith(" Mine.")
    assert lenient.locator("#passage-2").get_attribute("data-mark") == "relevant"
    lenient.unroute("**/submit")
    lenient.get_by_role("button", name="Try again").click()
    expect(lenient.locator(".lb-question")).to_contain_text("Question 2")
    until(lambda: Annotation.objects.filter(correction__endswith=" Mine.").count() == 1)


def test_somebody_else_may_take_the_item_ahead(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, 2)
    open_label_page(page, live_server, ann, queue)
    expect(page.locator(READY)).to_be_attached()
    second = queue.items.order_by("pk")[1]
    Assignment.objects.filter(item=second).delete()
    submit(turn=second.turn, annotator=make_user(), verdict="good", queue=queue)
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    assert Annotation.objects.filter(annotator=ann).count() == 1


def test_leaving_gives_back_what_was_fetched_ahead(
    live_server: LiveServer, page: Page, queue: Queue, ann: User
) -> None:
    fill(queue, 3)
    open_label_page(page, live_server, ann, queue)
    expect(page.locator(READY)).to_be_attached()
    assert Assignment.objects.live().count() == 2
    page.goto("about:blank")
    until(lambda: not Assignment.objects.live().exists())


def test_help_while_one_labels(live_server: LiveServer, page: Page, queue: Queue, ann: User, settings: object) -> None:
    """What it becomes, checks, a search that adds a passage, suggestions: all by keyboard."""
    settings.PROCESS = "web"  # type: ignore[attr-defined]
    settings.RATCHET_ENGINE_URL = "unix:/nobody/there.sock"  # type: ignore[attr-defined]
    fill(queue, 1)
    turn = queue.items.get().turn
    MachineLabel.objects.create(
        assistant=queue.assistant, turn=turn, client_id="1", payload_digest="0", kind="LLM", name="house-judge",
        version="3", verdict="bad", score=0.31, reasons=["incomplete"],
        explanation="It leaves out <b>the last 49 days</b>.",
    )  # fmt: skip
    text = "The exit fee is waived when you move house and <i>take</i> the plan with you."
    Chunk.objects.create(
        assistant=queue.assistant, document=make_document(queue.assistant, path="moving/fees.md", text=text),
        position=0, headings=["Moving house", "Fees"], text=text, digest="a" * 64, tokens=20,
        embedding=[1.0] + [0.0] * 383, sentence_embeddings=b"",
    )  # fmt: skip
    open_label_page(page, live_server, ann, queue)
    expect(page.locator("#lb-suggestions")).not_to_contain_text("house-judge")
    page.keyboard.press("g")
    expect(page.locator("#lb-becomes")).to_contain_text("A good example")
    expect(page.locator("#lb-suggestions")).to_contain_text("house-judge")
    expect(page.locator("#lb-suggestions")).to_contain_text("<b>the last 49 days</b>")
    shoot(page, "label-becomes-1280")
    for key in ("b", "3", "e"):
        page.keyboard.press(key)
    page.keyboard.type(" Penguins fly south.")
    checks = page.locator("#lb-checks li")
    expect(checks).to_have_count(2)
    expect(checks.nth(0)).to_contain_text("[1]")
    expect(checks.nth(1)).to_contain_text("no passage supports it")
    expect(page.locator("#lb-becomes")).to_contain_text("not learnt: no passage supports “Penguins fly south.”")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("exit fee moving")
    page.keyboard.press("Enter")
    expect(page.locator(".lb-hit")).to_have_count(1)
    expect(page.locator(".lb-hit-text").first).to_contain_text("<i>take</i>")
    shoot(page, "label-search-1280")
    page.keyboard.press("Enter")  # the button of the first one has the focus
    page.keyboard.press("Escape")
    expect(page.locator(".lb-added-one")).to_have_count(1)
    expect(page.locator("#lb-becomes")).to_contain_text("1 passage that retrieval should have found")
    shoot(page, "label-checks-1280")
    page.get_by_role("button", name="Light or dark").click()
    shoot(page, "label-checks-dark-1280")
    until(SavedDraft.objects.exists)
    page.evaluate("localStorage.clear()")  # another machine
    page.reload()
    expect(page.locator("#lb-message")).to_contain_text("Your unfinished work on this item is back")
    assert page.locator("#lb-correction").input_value().endswith(" Penguins fly south.")
    expect(page.locator(".lb-added-one")).to_have_count(1)
    resize(page, PHONE)
    shoot(page, "label-checks-390", whole=True)
    assert width_of(page) <= 390
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    label = Annotation.objects.get()
    assert (label.suggested, label.missed.get().source) == ("after", "moving/fees.md")


def test_100_kb_pasted_are_told_and_not_cut(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, 2)
    open_label_page(page, live_server, ann, queue)
    for key in ("b", "2", "e"):
        page.keyboard.press(key)
    page.locator("#lb-correction").fill("Fee. " * 20_000)
    expect(page.locator("[data-error=correction]")).to_contain_text("100,000 characters; at most 20,000")
    assert len(page.locator("#lb-correction").input_value()) == 100_000


def test_two_tabs_know_of_each_other(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    fill(queue, 1)
    open_label_page(page, live_server, ann, queue)
    other = page.context.new_page()
    other.goto(page.url)
    other.keyboard.press("g")
    expect(page.locator("#lb-message")).to_contain_text("open in another tab too")
    other.keyboard.press("Enter")
    expect(other.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    for key in ("b", "2", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("heading", name="Nothing left for you here")).to_be_visible()
    assert [label.verdict for label in Annotation.objects.current()] == ["bad"]
    assert Annotation.objects.count() == 2  # the earlier one is kept


def test_how_my_labels_look(live_server: LiveServer, page: Page, queue: Queue, ann: User) -> None:
    """Takes the screenshots (SCREENSHOTS=1) and checks that nothing sticks out sideways at either size."""
    fill(queue, 3)
    log_in(page, live_server, ann)
    page.goto(f"{live_server.url}/admin/label/mine/")
    expect(page.get_by_text("No labels yet.")).to_be_visible()
    better = "A fixed plan has an exit fee of £35. [1]"
    first, second, _ = (item.turn for item in queue.items.select_related("turn").order_by("pk"))
    submit(turn=first, annotator=ann, verdict="good", queue=queue)
    submit(turn=second, annotator=ann, verdict="bad", reasons=["wrong"], correction=better, queue=queue)
    page.reload()
    expect(page.get_by_text("2 of 2 labels make the verdict that counts")).to_be_visible()
    expect(page.get_by_text("with a better answer: adopted")).to_be_visible()
    shoot(page, "my-labels-1280", whole=True)
    assert width_of(page) <= 1280
    resize(page, PHONE)
    shoot(page, "my-labels-390", whole=True)
    assert width_of(page) <= 390

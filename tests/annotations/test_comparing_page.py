"""The blind comparison in a real browser: five pairs by keyboard."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.comparing.models import Choice, ComparisonChoice, ComparisonPair, ComparisonRound
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.test_accessibility import serious
from tests.factories import CONTEXTS, make_assistant, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

TODAY = "I can't find that in the documents."
CANDIDATE = "A fixed plan has an exit fee of £35. [1] No fee is due in the last 49 days of the plan. [1]"


@pytest.fixture
def rita() -> User:
    return make_user("rita")


@pytest.fixture
def opened(rita: User) -> ComparisonRound:
    """Five pairs of answers that differ from pair to pair."""
    assistant = make_assistant("brightwell", name="Brightwell Energy", members={"reviewer": [rita]})
    opened = ComparisonRound.objects.create(
        assistant=assistant, name="Evaluation 3, round 1", source="evaluation", source_id=3,
        candidate_arm="Adapter 2 + retrieval", baseline_arm="Base + retrieval (today)",
        questions=40, differing=12, seed=7,
    )  # fmt: skip
    contexts = [{"rank": rank, **context} for rank, context in enumerate(CONTEXTS, start=1)]
    for i in range(1, 6):
        ComparisonPair.objects.create(
            round=opened, position=i, key=f"q{i}",
            question=f"Question {i}: what does it cost to leave a fixed plan early?",
            history=[{"role": "user", "content": "Hello"}] if i == 2 else [], contexts=contexts,
            prompt=[{"role": "user", "content": f"Question {i}"}], candidate_text=f"{CANDIDATE} ({i})",
            baseline_text=f"{TODAY} ({i})", candidate_completion=CANDIDATE, baseline_completion=TODAY,
        )  # fmt: skip
    return opened


def open_page(page: Page, live_server: LiveServer, user: User, opened: ComparisonRound) -> None:
    log_in(page, live_server, user)
    page.goto(f"{live_server.url}/admin/compare/{opened.pk}/")


def test_five_pairs_blind_by_keyboard_only(
    live_server: LiveServer, page: Page, opened: ComparisonRound, rita: User
) -> None:
    open_page(page, live_server, rita, opened)
    question, press = page.locator(".lb-question"), page.keyboard.press
    expect(question).to_contain_text("Question 1")
    seen = page.content().lower()
    assert [word for word in ("candidate", "baseline", "adapter 2 +", "base +") if word in seen] == []
    lefts = []

    def go(*keys: str, then: str) -> None:
        lefts.append(page.locator(".cp-answer[data-side=left]").inner_text())
        for key in keys:
            press(key)
        expect(page.locator("#cp-work")).to_contain_text(then)

    press("Enter")  # nothing chosen yet
    expect(page.locator("#cp-message")).to_contain_text("Choose first")
    go("ArrowLeft", "1", "5", "Enter", then="Question 2")
    go("ArrowRight", "ArrowRight", then="Question 3")  # the same arrow again submits
    press("u")
    expect(question).to_contain_text("Question 2")
    lefts.pop()
    go("ArrowLeft", "ArrowRight", "Enter", then="Question 3")  # a change of mind before it is sent
    go("ArrowUp", "Enter", then="Question 4")
    go("ArrowDown", "3", "3", "2", "Enter", then="Question 5")
    go("ArrowLeft", "Enter", then="All 5 pairs judged")
    expect(page.locator("#cp-progress")).to_contain_text("5 of 5")

    made = list(ComparisonChoice.objects.current().select_related("pair").order_by("pair__position"))
    candidate_left = ["exit fee" in text for text in lefts]
    assert [choice.candidate_left for choice in made] == candidate_left
    first, second, third, fourth, fifth = (choice.choice for choice in made)
    assert (first == Choice.CANDIDATE, second == Choice.BASELINE) == (candidate_left[0], candidate_left[1])
    assert (third, fourth) == (Choice.BOTH_GOOD, Choice.BOTH_BAD)
    assert (fifth == Choice.CANDIDATE) == candidate_left[4]
    assert [choice.aspects for choice in made] == [["facts", "citation"], [], [], ["support"], []]
    assert all(choice.seconds is not None for choice in made)
    assert ComparisonChoice.objects.exclude(withdrawn_at=None).count() == 1


def test_it_fits_the_desk_and_the_phone(
    live_server: LiveServer, page: Page, opened: ComparisonRound, rita: User
) -> None:
    open_page(page, live_server, rita, opened)
    for name, size in (("desk", DESK), ("phone", PHONE)):
        resize(page, size)
        assert width_of(page) <= size[0]
        expect(page.locator(".cp-side.left")).to_be_in_viewport()
        expect(page.locator("#cp-submit")).to_be_in_viewport()
        for theme in ("light", "dark"):
            page.evaluate(f"document.documentElement.classList.toggle('dark', {str(theme == 'dark').lower()})")
            shoot(page, f"comparing-{name}-{theme}")
        page.evaluate("document.documentElement.classList.remove('dark')")


def test_without_a_connection_the_choice_stays(
    live_server: LiveServer, chromium: Browser, opened: ComparisonRound, rita: User
) -> None:
    context = chromium.new_context()  # browsers report the lost connection as an error of the page
    page = context.new_page()
    open_page(page, live_server, rita, opened)
    page.route("**/choose", lambda route: route.abort())
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator("#cp-message")).to_contain_text("still here")
    expect(page.locator("[name=side][value=both_good]")).to_be_checked()
    page.unroute("**/choose")
    page.locator("#cp-message button").click()
    expect(page.locator(".lb-question")).to_contain_text("Question 2")
    assert ComparisonChoice.objects.get().choice == Choice.BOTH_GOOD
    context.close()


def test_axe_finds_nothing_serious(
    live_server: LiveServer, chromium: Browser, opened: ComparisonRound, rita: User
) -> None:
    context = chromium.new_context(viewport={"width": DESK[0], "height": DESK[1]}, bypass_csp=True)
    page, axe, found = context.new_page(), Axe(), {}
    open_page(page, live_server, rita, opened)
    page.keyboard.press("ArrowLeft")
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.classList.toggle('dark', {str(theme == 'dark').lower()})")
        found[f"compare, {theme}"] = serious(axe, page)
    page.goto(f"{live_server.url}/admin/annotations/comparisonround/{opened.pk}/change/")
    found["result"] = serious(axe, page)
    shoot(page, "comparing-result", whole=True)
    page.goto(f"{live_server.url}/admin/annotations/comparisonround/")
    found["list"] = serious(axe, page)
    shoot(page, "comparing-list")
    context.close()
    assert {name: problems for name, problems in found.items() if problems} == {}

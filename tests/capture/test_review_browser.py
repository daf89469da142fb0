"""The review and the policy page in a real browser: keys, selecting with the mouse, both themes, a phone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from assistants.policies import change_policy, rules_of
from capture.models import Turn, UncertainMask
from capture.services import receive_turns, scrub_waiting
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.capture.conftest import Cast, turn_item

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def unsure(cast: Cast) -> Cast:
    rules = rules_of(cast.bot)
    policy = replace(
        rules.policy, thresholds={**rules.policy.thresholds, "LOCATION": 1.0}, review_band={"LOCATION": 0.6},
        deny=("Zorvex Plimble",),
    )  # fmt: skip
    change_policy(assistant=cast.bot, rules=replace(rules, policy=policy), actor=cast.dana, reason="Staff of the desk.")
    asked = "I live in Lisbon, <b>really</b>. What does leaving cost? Write to w.okafor@heathmere.co.uk or grandmother."
    contexts = [{"text": "A fixed plan has an exit fee of £35. Ask us first.", "title": "Leaving early"}]
    items: list[Any] = [
        turn_item(id="t-1", question=asked, response="In Lisbon it is £35. [1]", contexts=contexts),
        turn_item(
            id="t-2",
            conversation="c-2",
            question="Is it the same in Vienna?",
            response="Yes, £35. [1]",
            contexts=contexts,
        ),
        turn_item(
            id="t-3", conversation="c-3", question="And in Toronto?", response="Yes, £35. [1]", contexts=contexts
        ),
    ]
    receive_turns(assistant=cast.bot, api_key=cast.key, items=items)
    scrub_waiting()
    assert UncertainMask.objects.count() == 3
    return cast


def test_a_review_by_keys_and_mouse(live_server: LiveServer, page: Page, unsure: Cast) -> None:
    page.set_default_timeout(60_000)
    expect.set_options(timeout=30_000)
    log_in(page, live_server, unsure.dana)
    page.goto(f"{live_server.url}/admin/capture/uncertainmask/")
    shoot(page, "review-list")
    page.get_by_role("link", name="[LOCATION_1]").first.click()
    expect(page.get_by_text("Is this personal?")).to_be_visible()
    assert "Lisbon" not in page.content()
    page.keyboard.press("v")
    expect(page.locator("[data-shown]")).to_have_text("Lisbon")
    page.get_by_text("grandmother").evaluate(
        """node => { const walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT); let text;
        while ((text = walk.nextNode())) { const at = text.data.indexOf("grandmother"); if (at < 0) continue;
        const range = document.createRange(); range.setStart(text, at); range.setEnd(text, at + 11);
        const selection = getSelection(); selection.removeAllRanges(); selection.addRange(range); break; } }"""
    )
    expect(page.locator("#rv-selected")).to_have_value("grandmother")
    shoot(page, "review-item", whole=True)
    page.locator("body").press("m")
    expect(page.get_by_text("Masked in the whole conversation")).to_be_visible()
    assert "[PERSON_1]" in Turn.objects.get(client_id="t-1").question
    page.locator("body").press("r")
    page.locator("body").press("r")
    expect(page.get_by_text("is released")).to_be_visible()
    assert "Lisbon" in Turn.objects.get(client_id="t-1").question
    page.locator("body").press("j")
    expect(page.get_by_text("Toronto")).to_have_count(0)
    page.locator("body").press("a")
    expect(page.locator("[data-asks]")).to_contain_text("the value is destroyed. Press a again")
    shoot(page, "review-asks")
    for key in ("d", "Escape", "a"):  # another key, or Escape, begins anew
        page.locator("body").press(key)
    assert UncertainMask.objects.open().count() == 2, "one press decides nothing"
    page.locator("body").press("a")
    expect(page.get_by_text("stays masked")).to_be_visible()
    assert UncertainMask.objects.open().count() == 1
    resize(page, PHONE)
    assert width_of(page) <= PHONE[0]
    shoot(page, "review-item-phone", whole=True)


def test_the_policy_pages(live_server: LiveServer, page: Page, unsure: Cast) -> None:
    page.set_default_timeout(60_000)
    expect.set_options(timeout=30_000)
    log_in(page, live_server, unsure.dana)
    page.goto(f"{live_server.url}/admin/assistants/privacypolicy/of/{unsure.bot.pk}/")
    page.get_by_label("Try it").fill("I am Zorvex Plimble of Lisbon, call 07700 900417.")
    page.get_by_text("Types, thresholds and review bands").click()
    shoot(page, "policy-edit", whole=True)
    page.get_by_role("button", name="Show what would be masked").click()
    expect(page.locator(".pp-chip").first).to_be_visible()
    expect(page.locator(".pp-uncertain")).to_have_count(1)
    shoot(page, "policy-tried", whole=True)
    page.get_by_label("Never masked").fill("Lisbon")
    page.get_by_label("Why").fill("The office stands there.")
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_text("counts now")).to_be_visible()
    shoot(page, "policy-version", whole=True)
    page.get_by_role("button", name="Count what would change").click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()
    shoot(page, "rescrub")
    page.evaluate("document.documentElement.classList.add('dark')")
    page.goto(f"{live_server.url}/admin/assistants/privacypolicy/")
    shoot(page, "policy-history")
    resize(page, PHONE)
    page.goto(f"{live_server.url}/admin/assistants/privacypolicy/of/{unsure.bot.pk}/")
    assert width_of(page) <= PHONE[0]
    shoot(page, "policy-phone", whole=True)
    resize(page, DESK)

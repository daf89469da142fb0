"""axe-core over the pages of a privacy officer, in both colour schemes and on a phone: nothing serious may be found.
And the way through them by keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from assistants.models import PrivacyPolicy
from assistants.policies import change_policy, rules_of
from capture.models import Quarantine, UncertainMask
from capture.services import receive_turns, scrub_waiting
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.test_accessibility import serious
from tests.capture.conftest import Cast, turn_item

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def pages(cast: Cast) -> dict[str, str]:
    """One uncertain mask, one payload that could not be scrubbed, a policy of two versions."""
    rules = rules_of(cast.bot)
    policy = replace(
        rules.policy,
        thresholds={**rules.policy.thresholds, "LOCATION": 1.0},
        review_band={"LOCATION": 0.6},
        deny=("Zorvex Plimble",),
    )
    change_policy(assistant=cast.bot, rules=replace(rules, policy=policy), actor=cast.dana, reason="Staff of the desk.")
    contexts = [{"text": "A fixed plan has an exit fee of £35.", "title": "Leaving early"}]
    items = [
        turn_item(id="t-1", question="I live in Lisbon. What is the fee?", response="£35. [1]", contexts=contexts),
        turn_item(id="t-2", conversation="c-2", question="And?", response="£35. [1]", contexts=contexts),
    ]
    receive_turns(assistant=cast.bot, api_key=cast.key, items=items[:1])
    scrub_waiting()
    receive_turns(assistant=cast.bot, api_key=cast.key, items=items[1:])
    held = Quarantine.objects.get()
    Quarantine.objects.filter(pk=held.pk).update(state=Quarantine.State.HELD, error="A pattern ran longer than it may.")
    return {
        "review-list": "/admin/capture/uncertainmask/",
        "review": f"/admin/capture/uncertainmask/{UncertainMask.objects.get().pk}/change/",
        "quarantine": "/admin/capture/quarantine/",
        "policies": "/admin/assistants/privacypolicy/",
        "policy": f"/admin/assistants/privacypolicy/{PrivacyPolicy.objects.latest('pk').pk}/change/",
        "policy-edit": f"/admin/assistants/privacypolicy/of/{cast.bot.pk}/",
        "rescrubs": "/admin/capture/rescrub/",
        "leak-reports": "/admin/capture/leakreport/",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding(
    live_server: LiveServer, reader: Page, cast: Cast, pages: dict[str, str], scheme: str
) -> None:
    """And nothing sticks out sideways."""
    axe = Axe()
    log_in(reader, live_server, cast.dana)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: list[str] = []
    for name, address in pages.items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            answer = reader.goto(live_server.url + address)
            assert answer is not None
            assert answer.status == 200, name
            reader.wait_for_load_state("networkidle")
            assert width_of(reader) <= size[0], (name, size)
            shoot(reader, f"officer-{name}-{scheme}-{size[0]}", whole=True)
            found += [f"{name} {size[0]}: {problem}" for problem in serious(axe, reader)]
    assert not found, "\n".join(found)


def test_the_review_is_reached_and_left_by_keys(
    live_server: LiveServer, reader: Page, cast: Cast, pages: dict[str, str]
) -> None:
    log_in(reader, live_server, cast.dana)
    reader.goto(live_server.url + pages["review-list"])
    link = reader.get_by_role("link", name="[LOCATION_1]").first
    for _ in range(150):  # past the navigation, as somebody without a mouse goes
        reader.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    expect(link).to_be_focused()
    reader.keyboard.press("Enter")
    expect(reader.get_by_text("Is this personal?")).to_be_visible()
    reader.wait_for_load_state("networkidle")  # its script listens for keys
    reader.keyboard.press("v")
    expect(reader.locator("[data-shown]")).to_have_text("Lisbon")
    reader.goto(live_server.url + pages["quarantine"])
    expect(reader.get_by_text("A pattern ran longer than it may.")).to_be_visible()
    assert "And?" not in reader.content(), "what is held is read by nobody"
    answer = reader.goto(f"{live_server.url}{pages['quarantine']}{Quarantine.objects.get().pk}/change/")
    assert answer is not None
    assert answer.status == 404

"""The playground in a browser: asked with Ctrl-Enter, kept across pages, readable on a phone and by everybody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Browser, Page

from tests.browser import log_in
from tests.factories import add_member, make_adapter, make_queue, make_user
from tests.serving.conftest import QUESTION, Shop

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SHOTS = os.environ.get("SHOTS", "")
RULES = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


def shot(page: Page, name: str) -> None:
    """At both widths no page is wider than the window."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        if SHOTS:
            page.screenshot(path=str(Path(SHOTS) / f"{name}-{width}.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 1, (name, width)
    page.set_viewport_size({"width": 1280, "height": 900})


def enter(page: Page, live_server: Any, shop: Shop) -> str:
    """As an admin of the shop; the page's address."""
    user = make_user("ada")
    add_member(shop.assistant, user, "admin")
    log_in(page, live_server, user)
    return f"{live_server.url}{reverse('dashboards:playground')}"


def test_ask_compare_and_keep(shop: Shop, live_server: Any, page: Page) -> None:
    page.set_default_timeout(60_000)
    make_adapter(shop.assistant, number=1, seed=1)
    make_queue(shop.assistant, name="Second looks")
    url = enter(page, live_server, shop)
    page.goto(url)
    shot(page, "playground-empty")
    page.select_option("select[name=b]", f"{shop.assistant.slug}:1")
    page.fill("textarea[name=question]", QUESTION)
    with page.expect_navigation():
        page.press("textarea[name=question]", "Control+Enter")
    assert page.locator(".rt-answer").count() == 2
    assert page.locator("article.rt-item").count() == 3
    shot(page, "playground-answers")
    page.get_by_label("A fixed plan has an exit fee of £35.").check()
    page.fill("#answer", "It costs £35.")
    with page.expect_navigation():
        page.get_by_role("button", name="Add to the draft").click()
    assert page.locator("#count").inner_text() == "1"
    shot(page, "playground-draft")
    page.goto(url)  # another day: the draft is still in this browser
    assert "It costs £35." in page.input_value("#draft")
    assert page.locator("#count").inner_text() == "1"


def test_everybody_can_use_it(shop: Shop, live_server: Any, chromium: Browser) -> None:
    """axe needs a page that lets its script in; ours do not (which the other test proves)."""
    make_queue(shop.assistant)
    found = []
    for scheme in ("light", "dark"):
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(60_000)
        page = context.new_page()
        if scheme == "light":
            url = enter(page, live_server, shop)
            cookies = context.cookies()
        else:
            page.add_init_script("localStorage.setItem('adminTheme', JSON.stringify('dark'))")
            context.add_cookies(cookies)  # type: ignore[arg-type]
        page.goto(url)
        page.fill("textarea[name=question]", QUESTION)
        with page.expect_navigation():
            page.click("#ask")
        for rule in Axe().run(page, options=RULES).response["violations"]:
            found += [
                f"{scheme} {rule['id']}: {node['target']} {node['failureSummary']}"
                for node in rule["nodes"]
                if rule["impact"] in ("serious", "critical") and ".text-link" not in str(node)
            ]
        if SHOTS:
            page.screenshot(path=str(Path(SHOTS) / f"playground-{scheme}.png"), full_page=True)
        context.close()
    assert found == []

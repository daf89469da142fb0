"""What browser tests of this room share."""

from __future__ import annotations

import os
from pathlib import Path

from django.contrib.auth.models import User
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from annotations.models import Queue
from tests.browser import log_in

__all__ = ["ARTIFACTS", "DESK", "PHONE", "log_in", "open_label_page", "resize", "shoot", "width_of"]

ARTIFACTS = Path(__file__).resolve().parents[2] / "test-artifacts"
DESK = (1280, 800)
PHONE = (390, 844)


def resize(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})


def shoot(page: Page, name: str, *, whole: bool = False) -> None:
    """A picture to look at, taken with SCREENSHOTS=1; nothing is compared."""
    if os.environ.get("SCREENSHOTS"):
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=whole)


def width_of(page: Page) -> int:
    """How wide the content is: more than the window means that it sticks out sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth"))


def open_label_page(page: Page, live_server: LiveServer, user: User, queue: Queue) -> None:
    log_in(page, live_server, user)
    page.goto(f"{live_server.url}/admin/label/{queue.pk}/")

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_an_admin_logs_in_and_the_theme_runs_under_our_policy(live_server: LiveServer, page: Page) -> None:
    User.objects.create_superuser("ada", password="tulip-cable-96")
    page.goto(f"{live_server.url}/admin/")
    page.fill("#id_username", "ada")
    page.fill("#id_password", "tulip-cable-96")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("link", name="People").first).to_be_visible()
    page.goto(f"{live_server.url}/admin/auth/user/")
    expect(page.get_by_text("ada").first).to_be_visible()

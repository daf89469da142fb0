"""What tests of this room share as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep

import pytest
from django.db import connection
from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def recognisers() -> None:
    """Loaded before the clock of a page runs: what the web process does when somebody opens a labelling page."""
    from privacy.scrubber import Scrubber

    Scrubber().scrub_text("Nothing personal.")


@pytest.fixture
def lenient(chromium: Browser) -> Iterator[Page]:
    """A window in which refused requests, which browsers report as errors of the page, are expected."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def quiet(transactional_db: None) -> Iterator[None]:
    """Waits until the live server has answered what a page asked for before it was closed: emptying the tables beside a
    request that is still running ends in a deadlock."""
    yield
    deadline = monotonic() + 20
    while _busy() and monotonic() < deadline:
        sleep(0.05)


def _busy() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND (state <> 'idle' OR state_change > clock_timestamp() - interval '100 milliseconds')"
        )
        return int(cursor.fetchone()[0])

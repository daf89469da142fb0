"""One PostgreSQL with pgvector per test run: the embedded one, unless DATABASE_URL names another."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL

import pytest
from asgiref.sync import SyncToAsync
from django.db import connection, connections
from playwright.sync_api import Browser, Page

from config import dbserver, postgres
from config.env import envsecret
from tests.browser import LAUNCH_ARGS, SKIPPED, find_browser, why_not

_server: list[object] = []


def _owns_environment() -> bool:
    return os.environ.get("RATCHET_TEST_OWNER") == str(os.getpid())


def _start_server() -> None:
    """Once per run; workers of pytest-xdist find the server of the process that started them."""
    if os.environ.get("DATABASE_URL") or os.environ.get("RATCHET_TEST_DATABASE"):
        return
    var = Path(os.environ["RATCHET_VAR"])
    password = envsecret(postgres.PASSWORD_NAME, folder=var / "secrets")
    child, spot = dbserver.start(var, password, durable=False, output=DEVNULL)
    _server.append(child)
    dbserver.wait_ready(spot, password, child)
    os.environ["RATCHET_TEST_DATABASE"] = str(spot.home)


def pytest_configure(config: pytest.Config) -> None:
    if _owns_environment() and getattr(config.option, "numprocesses", None):
        _start_server()  # before the workers start, so that they all share it


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _owns_environment():
        return
    for child in _server:
        dbserver.stop(child)  # type: ignore[arg-type]
    _server.clear()
    shutil.rmtree(os.environ["RATCHET_VAR"], ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> Iterator[None]:
    """pytest-django calls this before it makes the test database: the moment to have a server."""
    _start_server()
    if not os.environ.get("DATABASE_URL"):  # it may have chosen its place after the settings were read
        connection.settings_dict["HOST"] = str(postgres.place(Path(os.environ["RATCHET_VAR"])).run)
    # Threads of servers keep no connection behind a request: the last of them would still be at the test database when
    # it is to go.
    connection.settings_dict["CONN_MAX_AGE"] = 0
    return


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What an earlier test has left is not for this one: a connection that was lost under Django, which would keep it
    until everything in this process has failed; and the mark of a web process, which the application sets when a test
    is the first to import it."""
    if connection.connection is not None and connection.connection.closed:
        connection.connection, connection.in_atomic_block, connection.closed_in_transaction = None, False, False
    os.environ.pop("RATCHET_PROCESS", None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What a web process writes a few seconds later is not written into the next test, which may have no database. What
    an asynchronous test asks the database runs in one thread of asgiref's that lasts as long as we do: its connection
    does not."""
    if counting := sys.modules.get("capture.counting"):
        counting.reset()
    if item.get_closest_marker("asyncio"):
        SyncToAsync.single_thread_executor.submit(connections.close_all).result(30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser per module; what uses it is skipped, and counted, where there is none.

    Not for longer: Playwright's synchronous interface keeps an event loop running on this thread, beside which no other
    can run, so a module does not mix these tests with asynchronous ones.
    """
    if reason := why_not():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    # Django would take that loop for an asynchronous view and refuse our queries.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), headless=True, args=LAUNCH_ARGS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh window of 1280 × 800. The test fails on errors in the page's scripts, blocked ones included."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    window = context.new_page()
    problems: list[str] = []
    window.on("pageerror", lambda error: problems.append(str(error)))
    window.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield window
    context.close()
    assert problems == []


@pytest.fixture
def reader(chromium: Browser) -> Iterator[Page]:
    """As `page`, for axe: it needs one that lets its script in, and ours do not (which the tests with `page` prove)."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if SKIPPED in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} browser tests were skipped, {why_not()}.", yellow=True)


@pytest.fixture
def var_dir() -> Path:
    """The run's state folder (what `settings.VAR_DIR` is)."""
    return Path(os.environ["RATCHET_VAR"])


@pytest.fixture(autouse=True, scope="session")
def _quick_passwords() -> None:
    """Slow hashing protects people; tests make hundreds of them."""
    from django.conf import settings

    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

"""Finds the Chromium that browser tests drive, and installs Debian's where that is allowed.

`python -m tests.browser --install` is what `make test` calls first.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from playwright.sync_api import Page
    from pytest_django.live_server_helper import LiveServer

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
LAUNCH_ARGS = ["--no-sandbox", "--disable-dev-shm-usage"]
SKIPPED = "no browser to drive"
"""How every reason for skipping begins, so that the summary can count them."""


def find_browser() -> str | None:
    """Path of a Chromium: $CHROMIUM, one on the path, an application of macOS, or Playwright's own."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named if Path(named).is_file() else None
    found = next(filter(None, map(shutil.which, NAMES)), None) or next(filter(os.path.isfile, MAC), None)
    if found:
        return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    return next((str(path) for path in sorted(cache.glob("chromium-*/chrome-linux*/chrome"), reverse=True)), None)


def driver_runs() -> bool:
    """Playwright brings a program of its own, which needs a library (libatomic) that a bare Debian lacks."""
    spec = importlib.util.find_spec("playwright")
    if spec is None or spec.origin is None:
        return False
    driver = Path(spec.origin).parent / "driver" / "node"
    try:
        return subprocess.run([driver, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def why_not() -> str | None:
    """Why browser tests cannot run here; None when they can."""
    if find_browser() is None:
        return f"{SKIPPED}: install Chromium (Debian: apt install chromium), or name it in CHROMIUM"
    if not driver_runs():
        return f"{SKIPPED}: Playwright's driver does not start (Debian: apt install libatomic1)"
    return None


def install() -> None:
    """Debian's packages, as root and with apt only. Trouble is told and never fatal: the tests are then skipped."""
    packages = [*([] if find_browser() else ["chromium"]), *([] if driver_runs() else ["libatomic1"])]
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"[browser] installing {' and '.join(packages)} for the browser tests", flush=True)
        _apt("update", "-qq") and _apt("install", "-y", "-qq", "--no-install-recommends", *packages)
    if reason := why_not():
        print(f"Browser tests will be skipped, {reason}.", flush=True)


def _apt(*arguments: str) -> bool:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"apt-get {arguments[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True)
    return done.returncode == 0


def log_in(page: Page, live_server: LiveServer, user: User) -> None:
    """Has the window's requests come from this person, without the form."""
    from django.conf import settings
    from django.test import Client

    client = Client()
    client.force_login(user)
    value = client.cookies[settings.SESSION_COOKIE_NAME].value
    page.context.clear_cookies()
    page.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": value, "url": live_server.url}])


if __name__ == "__main__" and "--install" in sys.argv[1:]:
    install()

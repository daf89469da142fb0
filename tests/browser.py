"""Finds the Chromium that browser tests drive, and installs Debian's where that is allowed.

`python -m tests.browser --install` is what `make test` calls first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
LAUNCH_ARGS = ["--no-sandbox", "--disable-dev-shm-usage"]
REASON = "no Chromium found: install one (Debian: apt install chromium), or name it in CHROMIUM"


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


def install() -> None:
    """Debian's Chromium, as root and with apt only. Trouble is told and never fatal: the tests are then skipped."""
    if find_browser():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"Browser tests will be skipped: {REASON}.")
        return
    print("[browser] installing Debian's chromium for the browser tests", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"Browser tests will be skipped: {' '.join(command[:2])} failed ({last}).")
            return


if __name__ == "__main__" and "--install" in sys.argv[1:]:
    install()

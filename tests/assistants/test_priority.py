"""Background work gives way where the processor is short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from assistants import priority

SCRIPT = """
import os, pathlib, django
django.setup()
from assistants.priority import give_way
give_way()
give_way()
group = pathlib.Path("/proc/self/autogroup")
print(os.nice(0), *((group.read_text() if group.exists() else "").split() or "-")[-1:])
"""


def _after(nice: str, *, leads: bool) -> tuple[int, str]:
    """Niceness of a new process after giving way twice, and that of its session ("-": it has none)."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "RATCHET_BACKGROUND_NICE": nice, "DJANGO_SETTINGS_MODULE": "config.settings"},
        cwd=settings.BASE_DIR, capture_output=True, text=True, check=True, start_new_session=leads,
    )  # fmt: skip
    own, group = done.stdout.split()
    return int(own), group


@pytest.mark.skipif(os.nice(0) > 9, reason="these tests run at a low priority themselves")
def test_a_process_and_the_session_that_it_leads_give_way() -> None:
    level, group = _after("10", leads=True)
    assert level == 10
    assert group == ("10" if Path("/proc/self/autogroup").exists() else "-")


@pytest.mark.skipif(os.nice(0) > 9, reason="these tests run at a low priority themselves")
def test_somebody_elses_session_keeps_its_priority() -> None:
    group = Path("/proc/self/autogroup")
    before = (
        group.read_text(encoding="ascii") if group.exists() else ""
    ).split()  # nothing in the first session of all
    assert _after("10", leads=False) == (10, before[-1] if before else "-")


def test_nothing_gives_way_where_that_is_switched_off() -> None:
    level, _ = _after("0", leads=True)
    assert level == os.nice(0)


def test_whoever_is_put_off_by_the_kernel_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all processes without privileges one may lower its session in a tenth of a second."""
    answers: list[type[OSError] | None] = [BlockingIOError, BlockingIOError, None]
    waited: list[float] = []

    def write(self: Path, text: str, **how: str) -> int:
        if (error := answers.pop(0)) is not None:
            raise error
        return len(text)

    monkeypatch.setattr(Path, "write_text", write)
    monkeypatch.setattr("assistants.priority.time.sleep", waited.append)
    priority._lower_session(10)
    assert len(waited) == 2
    answers[:] = [BlockingIOError] * 50
    with pytest.raises(BlockingIOError):
        priority._lower_session(10)
    assert len(waited) == 2 + priority.ATTEMPTS

"""An upload whose process is killed in the middle, for real: nothing is lost, done twice, or left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.db.models import Count

from assistants import background
from assistants.background import sweep
from knowledge.models import Document, Upload
from knowledge.uploads import IncomingFile, start_upload
from tests.assistants.test_background import database_url
from tests.factories import make_assistant
from tests.knowledge.files import make_zip

ROOT = Path(__file__).parents[2]
FILES = 8


@pytest.fixture
def performing(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Upload], Any]]:
    """Starts the process that a worker would start."""
    monkeypatch.setattr("knowledge.uploads.launch", lambda work: None)
    monkeypatch.setattr(background, "launch", lambda work: None)
    children: list[subprocess.Popen[bytes]] = []

    def start(work: Upload) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "perform", "knowledge.Upload", str(work.pk)],
            env={**os.environ, "DATABASE_URL": database_url(), "RATCHET_PROCESS": "worker"},
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_killed_in_the_middle_it_goes_on_where_it_stopped(performing: Callable[[Upload], Any]) -> None:
    pages = {f"{n}.html": f"<h1>Tale {n}</h1>" + f"<p>The tale of number {n} goes on.</p>" * 60 for n in range(FILES)}
    data = make_zip(pages)
    work = start_upload(assistant=make_assistant(), files=[IncomingFile("all.zip", len(data), data)])
    child = performing(work)
    until(lambda: work.files.filter(outcome="loaded").exists())
    family = psutil.Process(child.pid).children(recursive=True)
    assert family, "HTML is read in a process of its own"
    child.kill()  # this one alone: what it started has to notice by itself
    child.wait()
    done = work.files.filter(outcome="loaded").count()
    assert 0 < done < FILES
    assert psutil.wait_procs(family, timeout=30)[1] == []
    sweep()
    work.refresh_from_db()
    assert (work.state, work.attempt) == ("queued", 1)
    assert performing(work).wait(300) == 0
    work.refresh_from_db()
    assert (work.state, work.attempt) == ("succeeded", 2)
    assert work.files.filter(outcome="loaded").count() + work.files.filter(outcome="unchanged").count() == FILES
    assert work.files.filter(outcome="unchanged").count() <= 1  # stored, and killed before that was noted
    counted = Document.objects.annotate(n=Count("versions")).values_list("state", "version", "n")
    assert list(counted) == [("ready", 1, 1)] * FILES
    assert not any(bytes(data) for data in work.files.values_list("data", flat=True))

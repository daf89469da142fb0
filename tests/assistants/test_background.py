"""Background work as its row tells it: claim once, beat, cancel, crash, resume. Syntheses stand in for all work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.utils import timezone

from assistants import background, performing
from assistants.background import BackgroundWork, WorkCancelled, WorkLost, launch, sweep
from assistants.models import Assistant
from tests.factories import make_assistant
from training.models import Synthesis

State = BackgroundWork.State


@pytest.fixture
def work(db: None) -> Synthesis:
    return Synthesis.objects.create(assistant=make_assistant())


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[BackgroundWork]:
    """What would have been launched."""
    calls: list[BackgroundWork] = []
    monkeypatch.setattr(background, "launch", calls.append)
    return calls


def again(work: Synthesis) -> Synthesis:
    return Synthesis.objects.get(pk=work.pk)


def test_is_claimed_once(work: Synthesis) -> None:
    other = again(work)
    assert work.claim()
    assert not other.claim()
    assert (work.state, work.attempt, work.pid) == (State.RUNNING, 1, os.getpid())


def test_progress_is_kept_and_merged(work: Synthesis) -> None:
    work.claim()
    work.beat(done=1, total=4)
    work.beat(done=2)
    assert again(work).progress == {"done": 2, "total": 4}


def test_queued_work_is_cancelled_at_once_and_never_claimed(work: Synthesis) -> None:
    assert work.request_cancel()
    assert work.state == State.CANCELLED
    assert not again(work).claim()


def test_running_work_is_cancelled_at_its_next_beat(work: Synthesis) -> None:
    work.claim()
    again(work).request_cancel()
    with pytest.raises(WorkCancelled):
        work.beat()


def test_a_lost_token_stops_the_loser_and_keeps_its_result_out(work: Synthesis) -> None:
    work.claim()
    other = again(work)
    other.take_back()
    assert other.claim()
    with pytest.raises(WorkLost):
        work.beat()
    work.progress = {"stage": "of the one that was given up"}
    with pytest.raises(WorkLost):
        work.keep("progress")
    assert not work.finish(State.SUCCEEDED)
    assert again(work).state == State.RUNNING
    assert again(work).progress == {}
    other.progress = {"stage": "of the one that has it"}
    other.keep("progress")
    assert again(work).progress == other.progress


def test_what_a_ghost_writes_to_other_rows_goes_with_its_transaction(work: Synthesis) -> None:
    work.claim()
    other = again(work)
    other.take_back()
    assert other.claim()

    def make(slug: str, holder: Synthesis) -> None:
        with transaction.atomic():
            make_assistant(slug)
            holder.hold()

    with pytest.raises(WorkLost):
        make("of-the-ghost", work)
    make("of-its-successor", other)
    assert set(Assistant.objects.filter(slug__startswith="of-").values_list("slug", flat=True)) == {"of-its-successor"}
    assert other.finish(State.SUCCEEDED)
    with pytest.raises(WorkLost):
        make("of-one-that-has-ended", other)


def test_foreground_performs_and_finishes(work: Synthesis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Synthesis, "perform", lambda self: self.beat(done=1))
    launch(work, foreground=True)
    assert (work.state, work.progress) == (State.SUCCEEDED, {"done": 1})


def test_an_error_becomes_one_sentence(work: Synthesis, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Synthesis) -> None:
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(Synthesis, "perform", fail)
    launch(work, foreground=True)
    assert work.state == State.FAILED
    assert work.error == "OSError: [Errno 28] No space left on device"


def test_cancel_inside_the_work(work: Synthesis, monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(self: Synthesis) -> None:
        again(self).request_cancel()
        self.beat()

    monkeypatch.setattr(Synthesis, "perform", perform)
    launch(work, foreground=True)
    assert work.state == State.CANCELLED


def test_sweep_queues_the_work_of_a_dead_process_again(work: Synthesis, launched: list[BackgroundWork]) -> None:
    work.claim()
    Synthesis.objects.filter(pk=work.pk).update(pid=2**22 + 1)  # above the highest pid
    sweep()
    assert again(work).state == State.QUEUED
    assert launched[0] == work


def test_sweep_gives_up_after_the_last_attempt(work: Synthesis, launched: list[BackgroundWork]) -> None:
    for _ in range(Synthesis.max_attempts):
        mine = again(work)
        assert mine.claim()
        Synthesis.objects.filter(pk=work.pk).update(pid=2**22 + 1)
        sweep()
    failed = again(work)
    assert failed.state == State.FAILED
    assert "3 times" in failed.error


def test_sweep_leaves_living_work_alone(work: Synthesis, launched: list[BackgroundWork]) -> None:
    work.claim()
    sweep()
    assert again(work).state == State.RUNNING
    assert launched == []


def test_sweep_never_kills_a_process_that_is_no_performer(work: Synthesis, launched: list[BackgroundWork]) -> None:
    work.claim()  # by this test process
    Synthesis.objects.filter(pk=work.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    sweep()
    assert again(work).state == State.RUNNING


def test_sweep_takes_silent_work_from_another_machine(work: Synthesis, launched: list[BackgroundWork]) -> None:
    work.claim()
    Synthesis.objects.filter(pk=work.pk).update(host="elsewhere")
    sweep()
    assert again(work).state == State.RUNNING
    Synthesis.objects.filter(pk=work.pk).update(heartbeat_at=timezone.now() - timedelta(minutes=2))
    sweep()
    assert again(work).state == State.QUEUED


def test_the_oldest_queued_work_is_launched_when_the_device_is_free(launched: list[BackgroundWork], db: None) -> None:
    assistant = make_assistant()
    first, second = (Synthesis.objects.create(assistant=assistant) for _ in range(2))
    background.launch_waiting()
    assert launched == [first]
    first.claim()
    background.launch_waiting()
    assert launched == [first]
    first.finish(State.SUCCEEDED)
    background.launch_waiting()
    assert launched == [first, second]


def test_launch_queues_a_job_for_the_launch_worker(work: Synthesis) -> None:
    from django_q.models import OrmQ, Schedule

    launch(work)
    launch(work)
    assert [row.key for row in OrmQ.objects.all()] == ["train", "train"]
    assert [row.func() for row in OrmQ.objects.all()] == ["assistants.jobs.start"] * 2
    assert Schedule.objects.filter(func="assistants.jobs.sweep").count() == 1


def test_device_is_held_by_one(var_dir: Path) -> None:
    with performing.device(needed=True, wait=False) as mine:
        assert mine
        with performing.device(needed=True, wait=False) as other:
            assert not other
        with performing.device(needed=False, wait=False) as light:
            assert light
    with performing.device(needed=True, wait=False) as free:
        assert free


def test_command_refuses_what_is_no_work(db: None) -> None:
    for model, pk in (("training.Nothing", 1), ("assistants.Assistant", 1), ("training.Synthesis", 999_999)):
        with pytest.raises(CommandError):
            call_command("perform", model, pk)


# --- Real processes ---------------------------------------------------------------------------------------------------

SLEEPER = """
import sys, time
sys.path[:0] = [{root!r}, {platform!r}]
import os; os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django; django.setup()
from training.models import Synthesis
def perform(self):
    self.beat(stage="sleeping")
    while True:
        time.sleep(.05)
        {beat}
Synthesis.perform = perform
from django.core.management import call_command
call_command("perform", "training.Synthesis", {pk})
"""
ROOT = Path(__file__).parents[2]


def database_url() -> str:
    """Of the test database, for a child process."""
    d = connection.settings_dict
    host = d["HOST"]
    place = quote(host, safe="") if host.startswith("/") else host
    return f"postgres://{d['USER']}:{quote(d['PASSWORD'], safe='')}@{place}:{d['PORT']}/{d['NAME']}"


@pytest.fixture
def start(transactional_db: None) -> Iterator[object]:
    """Starts a process whose work sleeps until it is told to stop."""
    children: list[subprocess.Popen[bytes]] = []

    def run(work: Synthesis, *, deaf: bool = False) -> subprocess.Popen[bytes]:
        code = SLEEPER.format(
            root=str(ROOT), platform=str(ROOT / "platform"), pk=work.pk, beat="pass" if deaf else "self.beat()"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, "perform"],
            env={**os.environ, "DATABASE_URL": database_url(), "RATCHET_PROCESS": "worker"},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()


def until(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_killed_resumed_interrupted_cancelled(start, launched: list[BackgroundWork]) -> None:  # type: ignore[no-untyped-def]
    work = Synthesis.objects.create(assistant=make_assistant())
    asleep = lambda: again(work).progress == {"stage": "sleeping"} and again(work).state == State.RUNNING  # noqa: E731

    child = start(work)
    until(asleep)
    second = start(work)  # cannot have the device, leaves at once
    assert second.wait(60) == 0
    child.kill()
    child.wait()
    sweep()
    assert (again(work).state, again(work).attempt) == (State.QUEUED, 1)
    assert launched[0] == work

    child = start(work)
    until(asleep)
    child.terminate()  # the platform stops: back in the queue, no attempt counted
    assert child.wait(60) == 143
    assert (again(work).state, again(work).attempt) == (State.QUEUED, 1)

    child = start(work)
    until(asleep)
    again(work).request_cancel()
    assert child.wait(60) == 0
    assert again(work).state == State.CANCELLED


def test_work_that_ignores_a_cancel_is_killed(start, launched: list[BackgroundWork]) -> None:  # type: ignore[no-untyped-def]
    work = Synthesis.objects.create(assistant=make_assistant())
    child = start(work, deaf=True)
    until(lambda: again(work).state == State.RUNNING)
    os.kill(child.pid, 19)  # SIGSTOP: as deaf as can be
    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    Synthesis.objects.filter(pk=work.pk).update(cancel_requested_at=timezone.now() - timedelta(minutes=1))
    before, performing.STOP_SECONDS = performing.STOP_SECONDS, 0.5
    try:
        sweep()
    finally:
        performing.STOP_SECONDS = before
    assert not psutil.pid_exists(child.pid)
    assert again(work).state == State.CANCELLED

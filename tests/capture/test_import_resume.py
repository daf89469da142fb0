"""An import that is stopped, killed, or finds the quarantine full goes on, and stores everything once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from assistants.errors import ApiError
from capture.imports import posting, running
from capture.imports.posting import LivePoster
from capture.models import Quarantine, Receipt
from capture.sealing import content_of
from tests.capture.conftest import Cast, turn_item
from tests.capture.import_samples import BLOB, lines, own_state, run, states, turns, written
from tests.factories import make_assistant

ROOT = Path(__file__).resolve().parents[2]
__all__ = ["own_state"]
pytestmark = pytest.mark.usefixtures("own_state")


def stop_after(monkeypatch: Any, batches: int, error: BaseException) -> None:
    """Lets that many batches be stored, and stops once the next one is stored and not yet noted."""
    receive, done = posting.receive_turns, [0]

    def receive_then_stop(**fields: Any) -> Any:
        results = receive(**fields)
        done[0] += 1
        if done[0] > batches:
            raise error
        return results

    monkeypatch.setattr(posting, "receive_turns", receive_then_stop)


@pytest.mark.parametrize("container", ["jsonl", "json", "csv"])
def test_ctrl_c_and_again_goes_on_without_doubling(
    cast: Cast, tmp_path: Path, settings: Any, monkeypatch: Any, container: str
) -> None:
    path = tmp_path / f"log.{container}"
    if container == "csv":
        path.write_text("id,question,response\n" + "".join(f"i-{n},Q {n}?,A.\n" for n in range(50)) + "i-50,,\n")
    else:
        records = [*turns(50), {"id": "i-50"}]
        path.write_bytes(lines(records) if container == "jsonl" else json.dumps(records).encode())
    report = str(tmp_path / "refused.jsonl")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        stopped = run(path, batch=10, report=report)
    assert (stopped.code, Receipt.objects.count()) == (130, 30)
    assert "Run the same command again" in stopped.err
    assert len(states(settings)) == 1
    assert "question" not in states(settings)[0].read_text().replace("questions", "")
    sent: list[str] = []
    receive = posting.receive_turns

    def watch(**fields: Any) -> Any:
        sent.extend(item["id"] for item in fields["items"])
        return receive(**fields)

    with monkeypatch.context() as patch:
        patch.setattr(posting, "receive_turns", watch)
        done = run(path, batch=10, report=report)
    assert (done.code, Receipt.objects.count(), Quarantine.objects.count()) == (3, 50, 50)
    assert "Going on after 20 records" in done.err
    assert sent[0] == "i-20"  # what was noted is passed over
    assert done.out.startswith("51 records: 40 turns new, 10 known already;")
    assert len(Path(report).read_text().splitlines()) == 1
    assert states(settings) == []
    assert run(path, batch=10).out.startswith("51 records: 0 turns new, 50 known already;")


def test_another_report_than_the_one_of_before_is_said_not_to_be_whole(
    cast: Cast, tmp_path: Path, monkeypatch: Any
) -> None:
    """As after a full disk: the summary counts what both attempts refused."""
    path = written(tmp_path, [{"id": "bad"}, *turns(50), {"id": "worse"}])
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        stopped = run(path, batch=10, report=str(first))
    assert (stopped.code, "refused before" in stopped.err) == (130, False)
    done = run(path, batch=10, report=str(second), quiet=True)
    assert "2 refused" in done.out
    assert "second.jsonl gets what is refused from here on. 1 records were refused before" in done.err
    assert len(second.read_text().splitlines()) == 1


def test_traces_go_on_as_well_and_a_changed_file_or_database_starts_again(
    cast: Cast, tmp_path: Path, settings: Any, monkeypatch: Any
) -> None:
    rows = [{**row, "trace_id": f"t{n}", "id": f"{row['id']}-{n}"} for row in BLOB[:4] for n in range(40)]
    path = written(tmp_path, [{"broken": 1}, *rows, b"{\n"])
    with monkeypatch.context() as patch:
        stop_after(patch, 1, KeyboardInterrupt())
        assert run(path, batch=10, format="langfuse").code == 130
    before = Receipt.objects.filter(client_id__startswith="t").count()
    assert 5 < before < 40
    (state,) = states(settings)
    kept = state.read_bytes()
    done = run(path, batch=10)
    assert "Going on after" in done.err
    assert done.code == 3
    assert "2 refused" in done.out
    assert Receipt.objects.filter(client_id__startswith="t").count() == 40
    state.write_bytes(kept)
    Receipt.objects.all().delete()  # another database: the state is not believed
    done = run(path, batch=10)
    assert "Going on" not in done.err
    assert Receipt.objects.filter(client_id__startswith="t").count() == 40
    state.write_bytes(b"{")
    assert "Going on" not in run(path, batch=10).err
    state.write_bytes(kept)
    assert "Going on" not in run(path, batch=10, restart=True).err
    state.write_bytes(kept)
    with Path(path).open("ab") as more:
        more.write(lines([{**BLOB[0], "trace_id": "t99"}]))
    assert "Going on" not in run(path, batch=10).err
    assert Receipt.objects.filter(client_id="t99").exists()


def test_a_full_quarantine_is_waited_for(cast: Cast, tmp_path: Path, monkeypatch: Any) -> None:
    waits: list[int] = []

    def scrub_meanwhile(seconds: float) -> None:
        waits.append(Quarantine.objects.count())
        assert len(waits) < 50
        rows = Quarantine.objects.order_by("pk")[:7]
        Quarantine.objects.filter(pk__in=[row.pk for row in rows]).delete()

    poster = posting.LivePoster

    def with_our_sleep(*args: Any, **fields: Any) -> LivePoster:
        return poster(*args, **fields, sleep=scrub_meanwhile)

    monkeypatch.setattr("capture.management.commands.import_turns.LivePoster", with_our_sleep)
    done = run(written(tmp_path, turns(60)), batch=10, max_waiting=20)
    assert done.code == 0
    assert waits
    assert max(waits) <= 20
    assert "items wait to be scrubbed" in done.err
    assert Receipt.objects.count() == 60


def test_a_batch_larger_than_the_bound_goes_when_the_quarantine_is_empty(cast: Cast) -> None:
    said: list[str] = []
    poster = LivePoster(cast.bot, max_waiting=3, say=said.append, sleep=lambda _: pytest.fail("it waits"))
    assert {outcome.status for outcome in poster.turns(turns(10))} == {"new"}


def test_a_hint_when_nobody_scrubs_and_patience_with_a_busy_server(cast: Cast, monkeypatch: Any) -> None:
    said: list[str] = []
    slept = [0.0]

    def sleep(seconds: float) -> None:
        slept[0] += seconds
        if slept[0] > 90:
            Quarantine.objects.all().delete()

    poster = LivePoster(cast.bot, max_waiting=5, say=said.append, sleep=sleep)
    poster.turns(turns(5))
    poster.turns([turn_item(id="late")])
    assert [line for line in said if "manage.py scrub" in line] == said[1:2]
    slept[0] = 0
    receive, refusals = posting.receive_turns, [ApiError(503, headers={"Retry-After": "7"}), OperationalError("away")]

    def busy(**fields: Any) -> Any:
        if refusals:
            raise refusals.pop(0)
        return receive(**fields)

    monkeypatch.setattr(posting, "receive_turns", busy)
    monkeypatch.setattr(posting, "connection", SimpleNamespace(in_atomic_block=False, close=lambda: None))
    assert poster.turns([turn_item(id="later")])[0].status == "new"
    assert slept[0] == 8


def test_memory_does_not_grow_with_the_file(cast: Cast, tmp_path: Path, monkeypatch: Any) -> None:
    """No more than a batch of records is alive at any time."""
    alive: list[int] = []
    flush = running.Run._flush

    def watch(self: Any) -> None:
        alive.append(len(self._pending))
        flush(self)

    monkeypatch.setattr(running.Run, "_flush", watch)
    monkeypatch.setattr(running, "BATCH_BYTES", 20_000)
    run(written(tmp_path, turns(300)), batch=100, dry_run=True)
    assert max(alive) < 30
    assert sum(alive) == 300


@pytest.mark.django_db(transaction=True)
def test_killed_at_any_moment_it_goes_on(tmp_path: Path, settings: Any) -> None:
    """A process of its own on the same database, killed by SIGKILL, then by SIGTERM, then left to end."""
    make_assistant("bot")
    path = written(tmp_path, turns(3000))
    command = [sys.executable, "manage.py", "import_turns", path, "--assistant=bot", "--batch=20"]
    environment = {**os.environ, "DATABASE_URL": _address(), "RATCHET_VAR": str(settings.VAR_DIR)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        child = start()
        _wait_for(child, Receipt.objects.count() + 200)
        child.send_signal(number)
        child.communicate(timeout=60)
        assert child.returncode == expected
        assert Receipt.objects.count() < 3000
        assert not Receipt.objects.filter(quarantine=None).exists()
    child = start()
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert "Going on after" in err
    assert out.startswith("3,000 records: ")
    assert Receipt.objects.count() == Quarantine.objects.count() == 3000
    last = Quarantine.objects.latest("pk")
    settings.RATCHET_DATA_KEY = (settings.VAR_DIR / "secrets" / "ratchet_data_key").read_text().strip()
    assert json.loads(content_of(last.payload))["item"]["id"] == "i-2999"


def _address() -> str:
    of = connection.settings_dict
    host = quote(str(of["HOST"]), safe="")
    return f"postgres://{of['USER']}:{quote(str(of['PASSWORD']), safe='')}@{host}:{of['PORT']}/{of['NAME']}"


def _wait_for(child: subprocess.Popen[str], count: int) -> None:
    end = timezone.now() + timedelta(seconds=60)
    while Receipt.objects.count() < count:
        assert child.poll() is None, child.communicate()[1]
        assert timezone.now() < end, "the import does not get on"
        time.sleep(0.01)

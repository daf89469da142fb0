"""The leak audit of large versions in a second process: the same report, and an end with its parent."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from assistants.models import Assistant
from capture.models import LeakReport
from tests.factories import make_assistant
from tests.training.data.test_build import DECLINE, HANDOFF, build, curate, resolved
from training.data import auditing
from training.data.auditing import HelperLost, helper_for
from training.data.candidates import Candidate
from training.models import DatasetVersion

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def assistant() -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


def told(report: LeakReport | None) -> dict[str, Any]:
    assert report is not None
    names = ("verdict", "findings", "doubtful", "counts", "keys", "rows", "content_hash", "policy_digest")
    return {name: getattr(report, name) for name in names}


def test_who_reads_the_rows_changes_nothing(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    curate(assistant)
    answer = "A fixed plan has an exit fee of £35. [1]"
    resolved(assistant, "Is it £35? Write to zoe.clark@example.org.", answer)
    resolved(assistant, "Write to zoe.clark@example.org: is it £35?", answer)
    here: DatasetVersion = build(assistant)
    monkeypatch.setattr(auditing, "WITH_HELPER", 1)
    monkeypatch.setattr(auditing, "PART", 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    beside: DatasetVersion = build(assistant)
    assert (beside.state, beside.content_hash) == ("succeeded", here.content_hash)
    assert told(beside.leak_report) == told(here.leak_report)
    assert told(here.leak_report)["counts"]["EMAIL"] >= 2
    rows = {beside.examples.get(position=int(f["row"])).question for f in told(beside.leak_report)["findings"]}
    assert all("zoe.clark" in question for question in rows)


def test_a_helper_that_is_killed_fails_the_work_with_a_sentence(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "WITH_HELPER", 1)
    monkeypatch.setattr(auditing, "PART", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    row = Candidate("good", "answer", "g", "When does it open?", [], [], [], [{"text": "At nine.", "refs": []}])
    with helper_for(assistant, "x", 10) as helper:
        assert helper is not None
        helper.read(row)
        helper._asked[0].result()
        (process,) = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(HelperLost, match="Build the version again"):
            helper.report()


def test_few_rows_need_no_helper(assistant: Assistant) -> None:
    with helper_for(assistant, "x", 100) as helper:
        assert helper is None

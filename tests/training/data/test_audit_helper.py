"""The leak audit of large versions in a second process: the same report, and an end with its parent."""

from __future__ import annotations

import os
import pickle
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest

from assistants.models import Assistant
from capture.models import Conversation, LeakReport
from capture.vault import entities_key
from knowledge.query import question_vectors
from privacy.entities import EntityTable, Value
from tests.factories import make_assistant
from tests.training.data.test_build import DECLINE, HANDOFF, build, curate, resolved
from training.data import auditing, embedding
from training.data.auditing import Helper, HelperLost, Stored, helper_for
from training.data.candidates import Candidate
from training.data.embedding import embedding_for
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


def rows_of(count: int) -> list[Stored]:
    asked = [
        "Write to zoe.clark@example.org: is it open?" if i % 3 == 0 else f"When is desk {i} open?" for i in range(count)
    ]
    made = [Candidate("good", "answer", "g", one, [], [], [], [{"text": "At nine.", "refs": []}]) for one in asked]
    return [Stored(i * 1_000, None, pickle.dumps(one)) for i, one in enumerate(made)]


def started() -> list[psutil.Process]:
    """Helpers of this process that run."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill_started() -> None:
    """And wait until its pool has noticed. Not with `psutil`'s wait: that takes the exit status away from the pool,
    which then waits for its child for ever."""
    (process,) = started()
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    with suppress(psutil.NoSuchProcess):
        while process.status() and time.monotonic() < deadline:
            time.sleep(0.01)


def kill(helper: Helper) -> None:
    """Once all that it was given is read."""
    while helper._asked:
        helper._asked.popleft().result()
    kill_started()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "WITH_HELPER", 1)
    monkeypatch.setattr(auditing, "PART", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def test_a_helper_that_is_killed_is_replaced_once_and_nothing_is_lost(assistant: Assistant, small: None) -> None:
    rows = rows_of(7)
    with helper_for(assistant, "x", 10) as helper:
        assert helper is not None
        for row in rows:
            helper.read(row)
        expected = helper.report(rows.__getitem__)
    assert [finding["row"] for finding in expected.findings] == ["0", "3", "6"]
    with helper_for(assistant, "x", 10) as helper:
        assert helper is not None
        helper.look(rows)
        for row in rows[:4]:
            helper.read(row)
        kill(helper)  # with the first four rows
        for row in rows[4:]:
            helper.read(row)
        found = helper.report(rows.__getitem__)
    assert sorted(finding["row"] for finding in found.findings) == ["0", "3", "6"]
    assert (found.rows, found.counts, found.keys) == (7, expected.counts, expected.keys)


def test_a_second_loss_fails_the_work_with_a_sentence(assistant: Assistant, small: None) -> None:
    rows = rows_of(6)
    with helper_for(assistant, "x", 10) as helper:
        assert helper is not None
        for first in (0, 2, 4):
            helper.read(rows[first])
            helper.read(rows[first + 1])
            if first != 2:  # the second part finds the first helper gone, the third is the other one's
                kill(helper)
        with pytest.raises(HelperLost, match=r"twice\. Build it again"):
            helper.report(rows.__getitem__)


def test_a_build_goes_on_when_its_helper_is_killed(
    assistant: Assistant, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    curate(assistant)
    resolved(assistant, "Is it £35? Write to zoe.clark@example.org.", "A fixed plan has an exit fee of £35. [1]")
    expected = build(assistant)
    plain, killed = Helper.report, []

    def report(helper: Helper, row: Any) -> LeakReport:
        kill(helper)
        killed.append(helper._read)
        return plain(helper, row)

    monkeypatch.setattr(Helper, "report", report)
    made: DatasetVersion = build(assistant)
    assert killed
    assert (made.state, made.content_hash) == ("succeeded", expected.content_hash)
    assert told(made.leak_report) == told(expected.leak_report)
    assert told(made.leak_report)["counts"]["EMAIL"] >= 1


def gone() -> bool:
    """Whether all that was started ends by itself."""
    end = time.monotonic() + 60
    while started() and time.monotonic() < end:
        time.sleep(0.1)
    return not started()


def test_what_is_embedded_aside_is_the_same(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    curate(assistant)
    here: DatasetVersion = build(assistant)
    monkeypatch.setattr(embedding, "ASIDE", 1)
    aside: DatasetVersion = build(assistant)
    assert (aside.state, aside.content_hash) == ("succeeded", here.content_hash)
    assert [step["kept"] for step in aside.funnel] == [step["kept"] for step in here.funnel]
    asked: list[Any] = [("When does it open?", []), ("And on Sunday?", [{"role": "user", "content": "When?"}])]
    others: list[Any] = [("Is it far?", [])]
    with embedding_for(10, lambda: [(asked, {})]) as embed:
        assert gone()  # it has done what was known to be asked, and does not wait until somebody does
        assert np.allclose(embed(asked), question_vectors(asked), atol=1e-6)
        assert started() == []
        assert np.allclose(embed(others), question_vectors(others), atol=1e-6)
        kill_started()
        assert np.allclose(embed(others), question_vectors(others), atol=1e-6)
    assert started() == []


def test_what_was_looked_at_is_read_again_only_where_something_is_known(assistant: Assistant, small: None) -> None:
    """A row of which nothing was found by itself, in a conversation of which a value is known."""
    turn = resolved(assistant, "And Xanthe Quillfeather?", "At nine. [1]")
    table = EntityTable(entities_key(assistant.pk, turn.conversation.external_id))
    table.assign([Value("PERSON", "Xanthe Quillfeather", private=True)])
    Conversation.objects.filter(pk=turn.conversation_id).update(entities=table.to_dict())
    said: list[Any] = [{"text": "xanthe quillfeather opens it.", "refs": []}]
    quiet = Candidate("good", "answer", "g", "Who does?", [], [], [], said)
    rows = [Stored(i, key, pickle.dumps(replace(quiet, turn_id=key))) for i, key in enumerate((None, turn.pk))]
    with helper_for(assistant, "x", 10) as helper:
        assert helper is not None
        helper.look(rows)
        for one in [*rows, Stored(0, None, b"nobody unpacks it")]:
            helper.read(one)
        report = helper.report(rows.__getitem__)
    assert (report.rows, [(finding["row"], finding["by"]) for finding in report.findings]) == (
        3,
        [("1", "conversation")],
    )


def test_few_rows_need_no_helper(assistant: Assistant) -> None:
    with helper_for(assistant, "x", 100) as helper:
        assert helper is None

"""A turn is never lost because capture is away: it waits on disk, encrypted, and is taken in afterwards."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from assistants.vault import encrypt
from capture.models import Quarantine, Turn
from serving import jobs, spool
from tests.serving.conftest import QUESTION, Shop, turn_of, until


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def fail(**_: object) -> None:
        raise ConnectionError("the database went away")

    monkeypatch.setattr("serving.chat.receive_turns", fail)
    return monkeypatch


def test_the_user_gets_the_answer_and_the_turn_waits_on_disk(shop: Shop, broken: pytest.MonkeyPatch) -> None:
    answers = [shop.ask(), next(iter(list(shop.ask(stream=True))))]
    until(lambda: len(list(spool.folder().glob("*.turn"))) == 2, "the turns were not spooled")
    assert Quarantine.objects.count() == 0
    assert stat.S_IMODE(spool.folder().stat().st_mode) == 0o700
    for path in spool.folder().iterdir():
        assert b"exit fee" not in path.read_bytes()
        assert QUESTION.encode() not in path.read_bytes()
    broken.undo()
    assert jobs.drain_spool() == 2
    assert not spool.has_waiting()
    assert turn_of(answers[0].id).question == QUESTION
    assert Turn.objects.get(client_id=answers[1].id).question == QUESTION
    assert jobs.drain_spool() == 0


def test_the_next_turn_that_is_captured_brings_the_waiting_ones_along(shop: Shop, broken: pytest.MonkeyPatch) -> None:
    shop.ask()
    until(spool.has_waiting, "the turn was not spooled")
    broken.undo()
    shop.ask()
    until(lambda: Quarantine.objects.count() == 2, "the spooled turn was not taken in")
    until(lambda: not spool.has_waiting(), "the file is still there")


def test_a_file_that_cannot_be_read_does_not_hold_up_the_rest(shop: Shop, broken: pytest.MonkeyPatch) -> None:
    shop.ask()
    until(spool.has_waiting, "the turn was not spooled")
    broken.undo()
    (spool.folder() / "a.turn").write_bytes(b"not ours")
    record: dict[str, Any] = {"assistant": shop.assistant.pk, "api_key": None, "item": {"id": "x"}}
    (spool.folder() / "b.turn").write_bytes(encrypt(json.dumps(record).encode()))
    record["assistant"] = 0
    (spool.folder() / "c.turn").write_bytes(encrypt(json.dumps(record).encode()))
    assert spool.drain() == 1
    assert sorted(p.name for p in spool.folder().iterdir()) == ["a.refused", "b.refused"]


def test_taken_twice_it_is_there_once(shop: Shop, broken: pytest.MonkeyPatch) -> None:
    shop.ask()
    (path,) = until(lambda: list(spool.folder().glob("*.turn")), "the turn was not spooled")
    broken.undo()
    copy = path.read_bytes()
    assert spool.drain() == 1
    path.write_bytes(copy)
    assert spool.drain() == 1
    assert Quarantine.objects.count() == 1


def test_a_full_spool_costs_the_turn_but_never_the_answer(
    shop: Shop, broken: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken.setattr(spool, "MAX_FILES", 0)
    assert shop.ask().choices
    until(lambda: "a turn is lost" in caplog.text, "nobody was told")
    assert not spool.has_waiting()

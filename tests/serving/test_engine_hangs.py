"""An engine that listens and says nothing (stopped, or out of memory): nobody waits for it as long as for an answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generation import client as module
from generation.client import EngineClient
from generation.engines import EngineUnavailable
from serving import jobs, warming
from serving.experiments import shadow
from tests.factories import make_adapter, make_assistant


@pytest.fixture
def hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineClient]:
    """Connections are taken by the kernel, as those of a process that is stopped."""
    for name in ("QUESTION_SECONDS", "LOAD_SECONDS", "LOOK_SECONDS"):
        assert getattr(module, name) <= 30
        monkeypatch.setattr(module, name, 0.2)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "engine.sock"))
        listening.listen(20)
        found = EngineClient(f"unix:{tmp_path / 'engine.sock'}")
        monkeypatch.setattr("serving.api.client", lambda: found)
        yield found


def test_short_calls_end_soon(hung: EngineClient, tmp_path: Path) -> None:
    began = time.monotonic()
    for call in (
        hung.begin_embed(["When?"]), hung.adapters, hung.health, hung.metrics,
        lambda: hung.load_adapter("one", tmp_path),
    ):  # fmt: skip
        with pytest.raises(EngineUnavailable, match="in time"):
            call()
    assert time.monotonic() - began < 5


@pytest.mark.django_db
def test_the_worker_does_not_wait_for_it(hung: EngineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "answer_all", lambda: pytest.fail("it would wait for answers"))
    assert jobs.answer_shadows() == 0


@pytest.mark.django_db
def test_an_engine_that_stops_answering_is_asked_to_load_once(
    hung: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.models import Deployment

    assistant = make_assistant()
    one, two = (make_adapter(assistant, number=number) for number in (1, 2))
    Deployment.objects.update_or_create(assistant=assistant, defaults={"adapter": one, "previous": two})
    asked: list[str] = []

    def load(name: str, *_: Any, **__: Any) -> None:
        asked.append(name)
        raise EngineUnavailable("It did not answer in time.")

    monkeypatch.setattr(hung, "adapters", list)
    monkeypatch.setattr(hung, "load_adapter", load)
    assert warming.warm() == 0
    assert asked == [one.engine_name]

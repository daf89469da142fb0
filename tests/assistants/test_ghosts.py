"""A ghost is a process that was given up and does not know it yet: what it has found must not replace what its
successor finds. Each test takes the work away at the last moment, behind the ghost's last beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from assistants.background import BackgroundWork, WorkLost, launch
from assistants.models import Assistant
from knowledge import selftest, uploads
from knowledge.models import RetrievalCheck
from knowledge.uploads import IncomingFile, start_upload
from tests.factories import make_assistant
from tests.training.data.test_build import curate
from training.data import build
from training.data.recipe import Recipe
from training.models import DatasetVersion


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant()


def taken_away(work: BackgroundWork, act: Callable[..., Any], successor: Callable[[], object]) -> Callable[..., Any]:
    """``act``, before whose first call the work is taken away and ``successor`` called."""
    met: list[bool] = []

    def acted(*args: Any, **named: Any) -> Any:
        if not met:
            met.append(True)
            type(work)._default_manager.get(pk=work.pk).take_back()
            successor()
        return act(*args, **named)

    return acted


def test_a_ghost_freezes_nothing_over_the_version_of_its_successor(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    curate(assistant)
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=1, recipe=Recipe().as_dict(), prompt_digest=assistant.prompt_digest
    )
    frozen: list[int] = []

    def succeed() -> None:
        again = DatasetVersion.objects.get(pk=dataset.pk)
        assert again.claim()  # not by `launch`: the ghost has the device
        again.perform()
        assert again.finish(DatasetVersion.State.SUCCEEDED)
        frozen.extend(again.examples.order_by("pk").values_list("pk", flat=True))

    monkeypatch.setattr(build, "write_version", taken_away(dataset, build.write_version, succeed))
    launch(dataset, foreground=True)
    dataset.refresh_from_db()
    assert (dataset.state, dataset.rows) == ("succeeded", len(frozen))
    assert list(dataset.examples.order_by("pk").values_list("pk", flat=True)) == frozen


def test_a_ghost_stores_no_result(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    check = RetrievalCheck.objects.create(assistant=assistant)
    result = selftest.SelfTest(*[0] * len(selftest.SelfTest.__dataclass_fields__))
    measured = taken_away(check, lambda **_: result, lambda: None)
    monkeypatch.setattr(selftest, "self_test", measured)
    check.claim()
    with pytest.raises(WorkLost):
        check.perform()
    check.refresh_from_db()
    assert (check.state, check.result) == ("queued", {})


def test_a_ghost_says_nothing_of_a_file(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "launch", lambda work: None)
    broken = b"%PDF-1.4 and nothing more"
    given = IncomingFile("broken.pdf", len(broken), lambda: broken)
    work = start_upload(assistant=assistant, files=[given])
    work.claim()
    file = work.files.get()
    monkeypatch.setattr(uploads, "load_one", taken_away(work, uploads.load_one, lambda: None))
    with pytest.raises(WorkLost):
        uploads.take_in(file)
    file.refresh_from_db()
    assert (file.outcome, file.sentence) == ("waiting", "")
    assert bytes(file.data)

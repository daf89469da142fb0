"""A name model that cannot be trusted: refused once, not for every text, and asked again when something has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.findings import ScrubError
from privacy.name_model import finder, refusals
from privacy.name_model.finder import NameModel, name_model
from privacy.name_model.network import Network
from privacy.name_model.probes import PROBES
from privacy.name_model.refusals import Refusals
from privacy.name_model.weights import FOLDER, NameModelError
from privacy.scrubber import Scrubber

TEXT = "My name is Anna Keller."


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folder of a model of this test's own, whole at first; then the folder once more for each attempt to load."""
    folder = tmp_path / "names"
    shutil.copytree(FOLDER, folder)
    tried = [folder]

    def load() -> NameModel:
        tried.append(folder)
        return NameModel(folder)

    monkeypatch.setattr(finder, "_loaded", load)
    monkeypatch.setattr(finder, "_REFUSALS", Refusals(lambda: sorted(folder.iterdir())))
    return tried


def test_a_refused_model_is_loaded_once_and_every_text_is_held(loads: list[Path]) -> None:
    (loads[0] / "graph.onnx").write_bytes(b"x" * 100)
    told = set()
    for _ in range(5):
        with pytest.raises(ScrubError, match="name model") as refused:
            Scrubber().scrub_text(TEXT)
        told.add(str(refused.value))
    assert len(loads) == 2
    assert len(told) == 1


def test_a_repaired_model_is_used_at_once(loads: list[Path]) -> None:
    good = (loads[0] / "graph.onnx").read_bytes()
    (loads[0] / "graph.onnx").write_bytes(b"x" * len(good))
    with pytest.raises(NameModelError):
        name_model()
    (loads[0] / "graph.onnx").write_bytes(good)
    os.utime(loads[0] / "graph.onnx", ns=(1, 1))
    assert Scrubber().scrub_text(TEXT).text == "My name is [PERSON_1]."


def test_after_some_seconds_it_is_tried_again(loads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(loads[0])
    monkeypatch.setattr(finder, "_REFUSALS", Refusals(lambda: [loads[0]]))
    monkeypatch.setattr(refusals, "RETRY_SECONDS", 0.0)
    for _ in range(3):
        with pytest.raises(NameModelError, match="missing"):
            name_model()
    assert len(loads) == 4


def test_what_is_wrong_elsewhere_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was short for a moment is no property of the model; the text is held all the same."""
    calls: list[int] = []

    def short() -> NameModel:
        calls.append(1)
        raise MemoryError

    monkeypatch.setattr(finder, "_loaded", short)
    for _ in range(2):
        with pytest.raises(ScrubError, match="MemoryError"):
            Scrubber().scrub_text(TEXT)
    assert len(calls) == 2


def test_the_shipped_model_finds_what_the_probes_hold() -> None:
    assert NameModel().failed_probes() == 0
    assert sum(bool(expected) for _, expected in PROBES) > 5
    assert sum(not expected for _, expected in PROBES) > 1


@pytest.mark.parametrize("how", ["nothing", "everything", "shifted", "of the neighbour"])
def test_a_machine_that_errs_is_refused(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that the one sentence of config.json, read alone, need not show."""
    computed = Network.probabilities

    def wrong(network: Network, windows: Any) -> Any:
        found = computed(network, windows)
        if how == "nothing":
            return [np.eye(7, dtype=np.float32)[np.zeros(len(one), dtype=int)] for one in found]
        if how == "everything":
            return [np.eye(7, dtype=np.float32)[np.ones(len(one), dtype=int)] for one in found]
        if how == "shifted":
            return [np.roll(one, 1, axis=0) for one in found]
        return [np.resize(found[0], one.shape) for one in found]

    monkeypatch.setattr(NameModel, "_computes_as_exported", lambda model: True)
    monkeypatch.setattr(Network, "probabilities", wrong)
    finder._loaded.cache_clear()
    monkeypatch.setattr(finder, "_REFUSALS", Refusals(list))
    try:
        with pytest.raises(ScrubError, match="cannot be trusted on this machine"):
            Scrubber().scrub_text(TEXT)
    finally:
        finder._loaded.cache_clear()

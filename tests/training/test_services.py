"""What may be started, and what is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from assistants.models import Assistant
from generation.engines import EngineUnavailable
from tests.factories import make_assistant, make_document
from tests.training.finetune.conftest import make_dataset
from training.data.recipe import Recipe
from training.models import Adapter, Benchmark, DatasetVersion, Synthesis
from training.services import NotPossible, build_dataset, start_evaluation, start_run, start_synthesis


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant()


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    works: list[Any] = []
    monkeypatch.setattr("training.services.launch", works.append)
    return works


def frozen(assistant: Assistant, **fields: Any) -> DatasetVersion:
    values = {"number": 1, "rows": 5, "state": "succeeded", "prompt_digest": assistant.prompt_digest, **fields}
    return DatasetVersion.objects.create(assistant=assistant, **values)


def test_work_is_launched_when_its_row_is_committed(
    assistant: Assistant, launched: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    make_document(assistant)
    with django_capture_on_commit_callbacks(execute=True):
        synthesis = start_synthesis(assistant=assistant, wanted=10)
        assert launched == []
    assert launched == [synthesis]


def test_datasets_are_numbered_per_assistant(assistant: Assistant) -> None:
    numbers = [build_dataset(assistant=assistant, benchmark=None, synthesis=None).number for _ in range(2)]
    other = build_dataset(assistant=make_assistant(), benchmark=None, synthesis=None, recipe=Recipe(seed=4))
    assert (numbers, other.number, other.recipe["seed"]) == ([1, 2], 1, 4)


def test_an_evaluation_declares_its_gate_before_it_measures(assistant: Assistant) -> None:
    benchmark = Benchmark.objects.create(assistant=assistant, name="b", content_hash="c")
    adapter = Adapter.objects.create(
        assistant=assistant, number=1, folder="x", base_digest="b", prompt_digest=assistant.prompt_digest
    )
    with pytest.raises(NotPossible, match="no questions"):
        start_evaluation(assistant=assistant, adapter=adapter, benchmark=benchmark)
    benchmark.items.create(key="a", question="What?", kind="decline")
    evaluation = start_evaluation(assistant=assistant, adapter=adapter, benchmark=benchmark)
    assert evaluation.gate_rule["primary"] == "grounded_correct"
    assert evaluation.base_digest == "b"
    Adapter.objects.filter(pk=adapter.pk).update(prompt_digest="other")
    adapter.refresh_from_db()
    with pytest.raises(NotPossible, match="Train a new adapter"):
        start_evaluation(assistant=assistant, adapter=adapter, benchmark=benchmark)


def test_refusals(assistant: Assistant) -> None:
    with pytest.raises(NotPossible, match="no documents"):
        start_synthesis(assistant=assistant, wanted=10)
    with pytest.raises(NotPossible, match="Between 1 and"):
        start_synthesis(assistant=assistant, wanted=0)
    with pytest.raises(NotPossible, match="still writing"):
        build_dataset(assistant=assistant, benchmark=None, synthesis=Synthesis.objects.create(assistant=assistant))
    stranger = frozen(make_assistant())
    with pytest.raises(NotPossible, match="another assistant"):
        start_run(assistant=assistant, dataset=stranger)
    with pytest.raises(NotPossible, match="not frozen"):
        start_run(assistant=assistant, dataset=frozen(assistant, number=2, state="running"))
    with pytest.raises(NotPossible, match="prompt format"):
        start_run(assistant=assistant, dataset=frozen(assistant, number=3, prompt_digest="f" * 16))


def test_a_missing_base_is_said_at_once(assistant: Assistant, settings: Any) -> None:
    settings.RATCHET_BASE_MODEL = "models/no-such-base"
    with pytest.raises(EngineUnavailable, match="missing"):
        start_run(assistant=assistant, dataset=make_dataset(assistant))

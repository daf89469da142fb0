"""What can be wrong with what a run is given, through the pages: each ends in a sentence that says what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant
from tests.factories import make_assistant, make_user
from tests.training.finetune.conftest import QUICK, make_dataset
from training.finetune.checkpoints import SEAL
from training.finetune.config import FinetuneConfig
from training.models import Adapter, Benchmark, BenchmarkItem, DatasetVersion, Run
from training.services import resume_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("run_settings")]


@pytest.fixture
def assistant() -> Assistant:
    return make_assistant(members={"admin": [make_user("ada")]})


@pytest.fixture
def dataset(assistant: Assistant, settings: Any, monkeypatch: pytest.MonkeyPatch) -> DatasetVersion:
    settings.RATCHET_FOREGROUND = True  # a started run is performed before the answer comes
    monkeypatch.setattr(FinetuneConfig, "from_dict", classmethod(lambda cls, values: cls(**{**QUICK, **values})))
    return make_dataset(assistant)


def said(address: str, **sent: Any) -> str:
    """The page that a person sees in the end, as text."""
    client = Client()
    assert client.login(username="ada", password="tulip-cable-96")
    page = client.post(address, sent, follow=True) if sent else client.get(address)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.content.decode())))


def start(dataset: DatasetVersion, method: str = "sft", **sent: Any) -> str:
    return said(reverse("admin:training_run_start"), dataset=dataset.pk, method=method, seed=1, **sent)


@pytest.fixture
def other_base(base: Path, tmp_path: Path, settings: Any) -> Path:
    """A copy of the base, to be damaged."""
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    settings.RATCHET_BASE_MODEL = str(copy)
    return copy


def change(name: str, **values: Any) -> Callable[[Path], None]:
    def do(base: Path) -> None:
        known = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps(known | values))

    return do


def cut(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("kto", "and no bad one. Label some more and build a new dataset, or train supervised."),
        ("dpo", "Correct bad answers in a queue and build a new dataset, or train supervised."),
    ],
)
def test_labels_that_do_not_suit_the_method(dataset: DatasetVersion, method: str, expected: str) -> None:
    assert expected in start(dataset, method)
    assert not Run.objects.exists()


def test_a_batch_that_cannot_be_cut(dataset: DatasetVersion) -> None:
    assert "Choose batch 16 or 24, or another micro_batch." in start(dataset, batch=17)
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (cut, "The base model cannot be read"),
        (change("config.json", model_type="brontosaurus"), "The base model cannot be read"),
        (change("config.json", max_position_embeddings=40), "use a base with a longer context."),
    ],
)
def test_a_base_that_does_not_fit(
    dataset: DatasetVersion, other_base: Path, damage: Callable[[Path], None], expected: str
) -> None:
    damage(other_base)
    page = start(dataset)
    assert expected in page
    assert "Traceback" not in Run.objects.get().error


def test_corrupt_checkpoints_are_thrown_away_and_the_run_ends_well(
    dataset: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.finetune import runs

    real = runs.register
    monkeypatch.setattr(runs, "register", lambda run, folder: (_ for _ in ()).throw(runs.RunRefused("Stopped here.")))
    assert "Stopped here." in start(dataset)
    run = Run.objects.get()
    sealed = sorted(Path(runs.run_folder(run)).glob("work/checkpoints/*/optimizer.pt"))
    assert sealed
    for optimiser in sealed:
        assert (optimiser.parent / SEAL).exists()
        optimiser.write_bytes(b"not what was sealed")
    monkeypatch.setattr(runs, "register", real)
    assert resume_run(run=run, actor=None)
    run.refresh_from_db()
    assert (run.state, run.error) == ("succeeded", "")
    assert run.progress["start"]["resumed_from"] == 0
    assert Adapter.objects.filter(run=run).exists()


def test_an_evaluation_whose_adapter_was_erased(dataset: DatasetVersion, assistant: Assistant) -> None:
    benchmark = Benchmark.objects.create(assistant=assistant, name="Held out", content_hash="b" * 64)
    BenchmarkItem.objects.create(benchmark=benchmark, key="one", question="What?", kind="decline")
    adapter = Adapter.objects.create(
        assistant=assistant, number=1, folder="adapters/gone/1", base_digest="b" * 64,
        prompt_digest=assistant.prompt_digest,
    )  # fmt: skip
    page = said(reverse("admin:training_evaluation_add"), adapter=adapter.pk, benchmark=benchmark.pk)
    assert "The files of Adapter 1 are not there any more. Restore its folder from a backup" in page

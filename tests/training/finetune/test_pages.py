"""The pages of runs and adapters: who sees them, what they show, what the buttons do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant, AuditEvent
from tests.factories import make_assistant, make_user
from tests.training.finetune.conftest import make_dataset, make_run
from training.models import Adapter, DatasetVersion, Run, RunMetric

pytestmark = pytest.mark.usefixtures("run_settings")


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(members={"admin": [make_user("ada")], "reviewer": [make_user("rob")]})


@pytest.fixture
def dataset(assistant: Assistant) -> DatasetVersion:
    return make_dataset(assistant)


@pytest.fixture
def run(dataset: DatasetVersion, base: Path) -> Run:
    run = make_run(dataset, base)
    run.claim()
    RunMetric.objects.bulk_create(
        RunMetric(run=run, step=step, loss=3 / step, learning_rate=1e-3, tokens_per_second=900) for step in (1, 2, 3)
    )
    sample = {"question": "<script>alert(1)</script>", "wanted": "[1] A.", "answer": "[2] B."}
    run.beat(stage="training", done=3, total=8, loss=1.0, samples=[{"step": 2, "epoch": 1.0, "samples": [sample]}])
    return run


def login(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password="tulip-cable-96")
    return client


def test_the_page_shows_the_run_and_escapes_what_the_model_said(run: Run) -> None:
    page = login("rob").get(reverse("admin:training_run_change", args=[run.pk])).content.decode()
    assert "loss-chart" in page
    assert "Cancel the run" not in page  # a reviewer only looks
    assert "<script>alert(1)" not in page
    assert "Cancel the run" in login("ada").get(reverse("admin:training_run_change", args=[run.pk])).content.decode()


def test_live_gives_what_is_new(run: Run) -> None:
    url = reverse("admin:training_run_live", args=[run.pk])
    live = login("rob").get(url, {"after": 2}).json()
    assert [point[0] for point in live["points"]] == [2, 3]
    assert (live["state"], live["done"], live["total"], live["active"]) == ("running", 3, 8, True)
    for bad in ("-1", "x", "9" * 20):
        assert login("rob").get(url, {"after": bad}).status_code == 400


def test_cancel_needs_an_admin_and_a_post(run: Run) -> None:
    url = reverse("admin:training_run_cancel", args=[run.pk])
    assert login("rob").post(url).status_code == 403
    assert login("ada").get(url).status_code == 405
    assert login("ada").post(url).status_code == 302
    run.refresh_from_db()
    assert run.cancel_requested_at is not None
    assert AuditEvent.objects.get(action="run.cancelled").actor_name == "ada"


def test_strangers_see_nothing(run: Run) -> None:
    other = make_user("eve")
    make_assistant(members={"admin": [other]})
    client = login("eve")
    for name in ("change", "live", "cancel"):
        url = reverse(f"admin:training_run_{name}", args=[run.pk])
        assert (client.post if name == "cancel" else client.get)(url).status_code == 403
    assert str(run) not in client.get(reverse("admin:training_run_changelist")).content.decode()
    assert f'value="{run.dataset_id}"' not in client.get(reverse("admin:training_run_start")).content.decode()


def test_starting_from_a_dataset(
    dataset: DatasetVersion, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[Any] = []
    monkeypatch.setattr("training.services.launch", launched.append)
    url = reverse("admin:training_run_start")
    client = login("ada")
    assert f'value="{dataset.pk}"' in client.get(url).content.decode()

    refused = client.post(url, {"dataset": dataset.pk, "seed": 1, "rank": 900, "keep": "last"})
    assert "rank must be between 1 and 256" in refused.content.decode()

    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(url, {"dataset": dataset.pk, "seed": 5, "epochs": "1.5", "rank": 8, "keep": "best"})
    run = Run.objects.get()
    assert answer.url == reverse("admin:training_run_change", args=[run.pk])
    assert (run.seed, run.settings["rank"], run.settings["epochs"], run.settings["keep"]) == (5, 8, 1.5, "best")
    assert (run.state, len(run.base_digest)) == (Run.State.QUEUED, 64)
    assert launched == [run]
    assert AuditEvent.objects.get(action="run.started").actor_name == "ada"


def test_the_adapter_page_tells_its_story(assistant: Assistant, run: Run) -> None:
    manifest = {
        "seed": 3, "steps": 8, "seconds": 4.2, "device": "cpu", "base_model": "models/tiny", "files": {"a": "f" * 64},
        "data": {"rows": 12, "weighted_rows": 13, "content_hash": "c" * 64}, "settings": {"rank": 4},
        "losses": {"first": 3.0, "last": 1.0, "validation": [{"step": 8, "loss": 1.5}]}, "versions": {"torch": "2"},
    }  # fmt: skip
    adapter = Adapter.objects.create(
        assistant=assistant, number=1, run=run, folder="x", manifest=manifest, base_digest="b" * 64, prompt_digest="p"
    )
    client = login("rob")
    page = client.get(reverse("admin:training_adapter_change", args=[adapter.pk])).content.decode()
    for text in (str(run), str(run.dataset), "f" * 64, "models/tiny", "has not been evaluated"):
        assert text in page
    assert "not evaluated" in client.get(reverse("admin:training_adapter_changelist")).content.decode()
    assert client.get(reverse("admin:training_datasetversion_changelist")).status_code == 200
    assert client.get(reverse("admin:training_run_changelist")).status_code == 200

"""What is live and cannot be served: users get answers all the same, so somebody has to be told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from assistants.models import Assistant
from serving.alerts import unserved, watching
from serving.models import Alert, Deployment
from tests.factories import make_adapter, make_assistant
from tests.tiny_model import shared_base
from training.finetune.bases import from_state
from training.models import Adapter


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant("helpdesk")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_that_is_live_and_cannot_be_served_is_urgent(assistant: Assistant, settings: Any) -> None:
    """Users get answers all the same, the base model's."""
    settings.RATCHET_BASE_MODEL = str(shared_base())
    adapter = make_adapter(assistant, seed=1)
    Deployment.objects.create(assistant=assistant, adapter=adapter)
    assert watching.look() == 0
    weights = from_state(adapter.folder) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    watching.look()
    alert = Alert.objects.get()
    assert (alert.kind, alert.level) == ("live_unserved", "urgent")
    assert "its files are damaged or were changed" in alert.sentence
    weights.unlink()
    watching.look()
    assert "its files are damaged or were changed" in Alert.objects.get().sentence
    weights.write_bytes(whole)
    Alert.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    assert watching.look() == 0
    for change, why in (
        ({"prompt_digest": "0" * 16}, "another prompt format"),
        ({"prompt_digest": adapter.prompt_digest, "base_digest": "0" * 64}, "another base model"),
        ({"base_digest": adapter.base_digest, "folder": "adapters/nowhere/1"}, "its folder cannot be read"),
        ({"source": Adapter.Source.REMOTE}, "answers only where it was trained"),
    ):
        Adapter.objects.update(**change)
        watching.look()
        assert why in Alert.objects.open().get().sentence


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_files_that_could_not_be_read_once_are_read_again(
    assistant: Assistant, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RATCHET_BASE_MODEL = str(shared_base())
    adapter = make_adapter(assistant, seed=2)

    def fails(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(unserved, "check_adapter", fails)
        assert unserved.why_unserved(adapter, prompt_digest=adapter.prompt_digest) == "its files cannot be read"
    assert unserved.why_unserved(adapter, prompt_digest=adapter.prompt_digest) == ""


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pages_hash_no_base_model(assistant: Assistant, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of gigabytes would hold the first page of each web process; the worker's alert tells of it."""
    settings.RATCHET_BASE_MODEL = str(shared_base())
    adapter = make_adapter(assistant, seed=3)
    adapter.base_digest = "0" * 64
    asked = {"prompt_digest": adapter.prompt_digest}
    assert unserved.why_unserved(adapter, **asked) == "it was trained on another base model"
    settings.PROCESS = "web"
    monkeypatch.setattr(unserved, "digest_of_base", lambda: pytest.fail("a page has hashed the base model"))
    assert unserved.why_unserved(adapter, **asked) == ""

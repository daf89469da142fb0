"""Pages of runs, adapters, rules and providers in a real browser: nothing serious for axe, nothing sticks out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from generation.adapters import base_digest
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.test_accessibility import serious
from tests.factories import make_assistant, make_user
from tests.training.finetune.conftest import make_dataset, make_run
from training.models import Adapter, RetrainingProposal, RetrainingRule, Run, RunMetric
from training.providers.services import save_provider

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("run_settings")]

MANIFEST: dict[str, Any] = {
    "seed": 3, "steps": 80, "seconds": 42.0, "device": "cpu", "base_model": "models/tiny", "files": {"a": "f" * 64},
    "data": {"rows": 12, "weighted_rows": 13, "content_hash": "c" * 64}, "settings": {"rank": 4}, "peak_mb": 900,
    "losses": {"first": 3.0, "last": 1.0, "validation": [{"step": 80, "loss": 1.5}]}, "versions": {"torch": "2"},
    "stages": [{"method": "sft", "data": {"rows": 12}, "steps": 80, "losses": {"first": 3.0, "last": 1.0}}],
}  # fmt: skip


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def addresses(ada: User, base: Path) -> dict[str, str]:
    assistant = make_assistant(members={"admin": [ada]})
    dataset = make_dataset(assistant)
    runs = [make_run(dataset, base, rank=rank) for rank in (4, 8)]
    for run in runs:
        RunMetric.objects.bulk_create(
            RunMetric(run=run, step=step, loss=3 / step + run.pk % 3, learning_rate=1e-3, tokens_per_second=900)
            for step in range(1, 80)
        )
        Run.objects.filter(pk=run.pk).update(state="succeeded", base_digest=base_digest(base))
    first = Adapter.objects.create(
        assistant=assistant, number=1, run=runs[0], folder="x", manifest=MANIFEST, base_digest="b" * 64,
        prompt_digest=assistant.prompt_digest,
    )  # fmt: skip
    second = Adapter.objects.create(
        assistant=assistant, number=2, run=runs[1], folder="y", manifest=MANIFEST, base_digest="b" * 64,
        prompt_digest=assistant.prompt_digest, parent=first,
    )  # fmt: skip
    RetrainingRule.objects.create(assistant=assistant, enabled=True, min_labels=40, every_days=7)
    proposal = RetrainingProposal.objects.create(
        assistant=assistant, reasons=[{"kind": "labels", "sentence": "41 resolved labels are new since Dataset 1."}]
    )
    RetrainingProposal.objects.filter(pk=proposal.pk).update(created_at=timezone.now() - timedelta(days=3))
    provider = save_provider(
        assistant=assistant, name="Elsewhere", base_url="http://127.0.0.1:9/v1", model="m", api_key="k", actor=ada
    )
    cluster = save_provider(
        assistant=assistant, kind="ray", name="Cluster", base_url="http://127.0.0.1:9", model="", api_key="", gpus=4,
        folder="/shared/runs", actor=ada,
    )  # fmt: skip
    return {
        "runs": reverse("admin:training_run_changelist"),
        "start": f"{reverse('admin:training_run_start')}?dataset={dataset.pk}",
        "run": reverse("admin:training_run_change", args=[runs[0].pk]),
        "compare": f"{reverse('admin:training_run_compare')}?run={runs[0].pk}&run={runs[1].pk}",
        "adapter": reverse("admin:training_adapter_change", args=[second.pk]),
        "import": reverse("admin:training_adapter_import"),
        "rule": reverse("admin:training_retrainingrule_of", args=[assistant.pk]),
        "provider": reverse("admin:training_trainingprovider_change", args=[provider.pk]),
        "cluster": reverse("admin:training_trainingprovider_change", args=[cluster.pk]),
        "add_provider": reverse("admin:training_trainingprovider_add"),
        "providers": reverse("admin:training_trainingprovider_changelist"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_and_nothing_sticks_out(
    live_server: LiveServer, reader: Page, axe: Axe, addresses: dict[str, str], ada: User, scheme: str
) -> None:
    log_in(reader, live_server, ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: dict[str, list[str]] = {}
    for name, address in addresses.items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            reader.goto(live_server.url + address)
            reader.wait_for_load_state("load")
            if name == "start":
                reader.click("button[name=check]")
                reader.wait_for_selector("#preflight")
            problems = serious(axe, reader)
            if width_of(reader) > size[0]:
                problems.append(f"wider than the window: {width_of(reader)}")
            if problems:
                found[f"{name} {size[0]}"] = problems
            shoot(reader, f"training_{name}_{scheme}_{size[0]}", whole=True)
    reader.goto("about:blank")
    assert not found, "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)


def test_curves_are_drawn_and_what_is_the_same_can_be_left_out(
    page: Page, live_server: LiveServer, addresses: dict[str, str], ada: User
) -> None:
    log_in(page, live_server, ada)
    page.goto(live_server.url + addresses["compare"])
    drawn = "Chart.getChart('compare-chart').data.datasets.map(set => set.data.length)"
    assert page.evaluate(drawn) == [79, 79]
    rows = page.locator("#compare-table tbody tr:visible")
    every = rows.count()
    page.check("#only-differences")
    assert 0 < rows.count() < every
    assert "rank" in page.locator("#compare-table").inner_text()

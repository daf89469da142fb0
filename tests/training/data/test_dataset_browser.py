"""The pages of datasets in a real browser: nothing serious for axe-core, nothing sticks out on a phone, charts draw."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from assistants.performing import perform_here
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.conftest import quiet
from tests.annotations.test_accessibility import axe, serious
from tests.factories import make_assistant, make_benchmark, make_user
from tests.training.data.test_build import DECLINE, HANDOFF, build, curate, resolved, synthesise
from training.data.recipe import Recipe
from training.data.services import exclude_rows, import_set
from training.models import BenchmarkItem, DatasetPreview

__all__ = ["axe", "quiet"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def addresses(ada: User, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("training.data.services.launch", lambda work: None)
    assistant = make_assistant("bot", decline_sentence=DECLINE, handoff_sentence=HANDOFF, members={"admin": [ada]})
    curate(assistant)
    bad = resolved(assistant, "Is it free?", "", verdict="bad", logged="It costs £99. [1]")
    benchmark = make_benchmark(assistant, name="Held out")
    BenchmarkItem.objects.create(
        benchmark=benchmark, key="k", question="On which day do I look at the meter?", kind="answer"
    )
    synthesis = synthesise(assistant)
    first = build(assistant, benchmark=benchmark, synthesis=synthesis, missing_oracle_share=0.2)
    child = exclude_rows(dataset=first, positions=[0, 1], note="They praise a rival.")
    perform_here(child)
    curated = import_set(assistant=assistant, name="Ours", content=b'{"prompt": "A?", "completion": "B."}\nnope')
    perform_here(curated)
    preview = DatasetPreview.objects.create(
        assistant=assistant, recipe=Recipe(missing_oracle_share=0.1).as_dict(), benchmark=benchmark, synthesis=synthesis
    )
    perform_here(preview)

    def page(name: str, *args: Any) -> str:
        return reverse(f"admin:training_{name}", args=args)

    row = first.examples.get(origin="corrected", question__startswith="What does it")
    return {
        "datasets": page("datasetversion_changelist"),
        "build": page("datasetversion_add"),
        "preview": page("datasetpreview_change", preview.pk),
        "dataset": page("datasetversion_change", first.pk),
        "child": page("datasetversion_change", child.pk),
        "row": page("datasetversion_row", first.pk, row.position),
        "difference": f"{page('datasetversion_difference', child.pk)}?with={first.pk}&side=there",
        "turn": page("datasetversion_turn", bad.pk),
        "sets": page("curatedset_changelist"),
        "import": page("curatedset_add"),
        "set": page("curatedset_change", curated.pk),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding(
    live_server: LiveServer, reader: Page, axe: Axe, addresses: dict[str, str], ada: User, scheme: str
) -> None:
    log_in(reader, live_server, ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: dict[str, list[str]] = {}
    for name, address in addresses.items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            reader.goto(live_server.url + address)
            reader.wait_for_load_state("networkidle")
            reader.evaluate("document.querySelectorAll('main details').forEach(d => d.open = true)")
            problems = serious(axe, reader)
            if width_of(reader) > size[0]:
                problems.append(f"{width_of(reader)} px wide")
            if problems:
                found[f"{name} {size[0]}"] = problems
            shoot(reader, f"dataset-{name}-{scheme}-{size[0]}", whole=True)
    assert not found, "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)


def test_charts_are_drawn_and_a_ticked_row_leaves(
    live_server: LiveServer, page: Page, addresses: dict[str, str], ada: User
) -> None:
    log_in(page, live_server, ada)
    page.goto(live_server.url + addresses["dataset"])
    page.wait_for_function("[...document.querySelectorAll('canvas[data-mix]')].every(c => Chart.getChart(c))")
    assert page.locator("canvas[data-mix]").count() == 2
    page.locator("input[name=row]").first.check()
    page.get_by_label("Why rows are left out").fill("Said twice.")
    page.get_by_role("button", name="New version without the ticked rows").click()
    page.get_by_text("Queued").wait_for()

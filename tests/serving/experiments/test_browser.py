"""The pages of experiments, drift and deployment in a browser: axe-core, both colour schemes, phone, the chart drawn.

SCREENSHOTS=1 takes pictures of them to look at.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from serving.drift.models import DriftReport
from serving.experiments import exposures
from serving.experiments.looking import look
from serving.experiments.models import Experiment, ExperimentLook
from serving.models import Deployment
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.conftest import quiet  # noqa: F401 - a fixture
from tests.annotations.test_accessibility import serious
from tests.factories import make_turn
from tests.serving.experiments.conftest import Bot, make_bot
from tests.serving.experiments.test_pages import shadows
from tests.serving.experiments.test_rules import fill
from training.models import DatasetVersion, Run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def house(transactional_db: None) -> Iterator[tuple[Bot, Experiment, DriftReport]]:
    bot = make_bot()
    experiment = bot.in_ab(by_rule=True)
    begin = timezone.now() - timedelta(days=3)
    for number, (n, bad) in enumerate(((60, 0.09), (90, 0.08), (120, 0.07), (200, 0.06), (300, 0.06))):
        experiment.exposures.all().delete()
        fill(bot, experiment, n, escalated=bad, down=bad)
        result = look(experiment, now=timezone.now())
        ExperimentLook.objects.create(
            experiment=experiment, at=begin + timedelta(hours=12 * number), stage="ab", epoch=2, result=result
        )
    shadows(experiment, 3)
    dataset = DatasetVersion.objects.create(
        assistant=bot.assistant, number=1, rows=10, state="succeeded", prompt_digest=bot.assistant.prompt_digest
    )
    run = Run.objects.create(
        assistant=bot.assistant, dataset=dataset, base_model="base", state="succeeded", prompt_digest="x"
    )
    type(bot.live).objects.filter(pk=bot.live.pk).update(run=run)
    turns = [make_turn(bot.assistant, question=f"Do you buy power from solar panels in {n}?") for n in "abcdef"]
    report = DriftReport.objects.create(
        assistant=bot.assistant, adapter=bot.live, dataset=dataset, state="succeeded", verdict="drift", alarm=True,
        since=begin, until=timezone.now(), started_at=begin, finished_at=timezone.now(),
        sentence="Users ask something else than the adapter was trained on (AUC 0.71, p = 0.005, 412 questions "
        "against 380). It was so in the window before, too.",
        now=[[str(turn.pk), 0.97 - i / 20] for i, turn in enumerate(turns)],
        results={
            "n_now": 412, "n_before": 380, "logged": False, "auc": 0.71, "p": 0.005, "mmd": 0.01, "mmd_p": 0.012,
            "fisher_p": 0.004, "words_p": 0.002,
            "behaviour": {"turns": 903, "declined": 0.21, "rated": 88, "down": 0.3},
            "passages": {"limit": 0.41, "now": 0.19, "before": 0.05, "n": 400},
            "wording": {
                "now": {"median_words": 8, "long_words": 19, "languages": {"en": 0.9, "de": 0.1}},
                "before": {"median_words": 7, "long_words": 15, "languages": {"en": 1.0}},
            },
            "documents": {"cited": 40, "changed": 2, "gone": 1, "paths": ["fees.md", "owl.md", "old.md"]},
        },
    )  # fmt: skip
    yield bot, experiment, report
    exposures.reset()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_and_nothing_sticks_out(
    live_server: LiveServer, reader: Page, house: tuple[Bot, Experiment, DriftReport], scheme: str
) -> None:
    bot, experiment, report = house
    log_in(reader, live_server, bot.ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    addresses = {
        "experiment": f"/admin/serving/experiment/{experiment.pk}/change/",
        "experiments": "/admin/serving/experiment/",
        "compare-live": f"/admin/dashboards/experiment/{experiment.pk}/compare/",
        "drift": f"/admin/serving/driftreport/{report.pk}/change/",
        "drifts": "/admin/serving/driftreport/",
        "deployment": f"/admin/serving/deployment/{Deployment.objects.get().pk}/change/",
        "start": "/admin/dashboards/experiment/start/bot/",
    }
    found: list[str] = []
    for name, address in addresses.items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            answer = reader.goto(live_server.url + address)
            assert answer is not None
            assert answer.status == 200, f"{name}: {answer.status}"
            reader.wait_for_load_state("networkidle")
            shoot(reader, f"live-{name}-{scheme}-{size[0]}", whole=True)
            found += [f"{name} {size[0]}: {line}" for line in serious(Axe(), reader)]
            if width_of(reader) > size[0]:
                found.append(f"{name} {size[0]}: {width_of(reader)} wide")
    assert not found, "\n".join(found)


def test_the_chart_is_drawn_under_the_content_policy(
    live_server: LiveServer, page: Page, house: tuple[Bot, Experiment, DriftReport]
) -> None:
    bot, experiment, _ = house
    log_in(page, live_server, bot.ada)
    page.goto(f"{live_server.url}/admin/serving/experiment/{experiment.pk}/change/")
    page.wait_for_load_state("networkidle")
    drawn = page.evaluate(
        "() => { const c = document.querySelector('canvas[data-interval]');"
        " return Chart.getChart(c).data.datasets[2].data.length; }"
    )
    assert drawn == 5


def test_charts_and_tables_are_taken_away_as_files(
    live_server: LiveServer, page: Page, house: tuple[Bot, Experiment, DriftReport]
) -> None:
    """The looks also while their table is folded; a question that a spreadsheet would compute is a text."""
    bot, experiment, report = house
    asked = make_turn(bot.assistant, question='=1+1, "dear"?')
    DriftReport.objects.filter(pk=report.pk).update(now=[[str(asked.pk), 0.99]])
    log_in(page, live_server, bot.ada)

    def taken(name: str) -> tuple[str, bytes]:
        with page.expect_download() as started:
            page.get_by_role("button", name=name, exact=True).click()
        return started.value.suggested_filename, started.value.path().read_bytes()

    page.goto(f"{live_server.url}/admin/serving/experiment/{experiment.pk}/change/")
    title = "The difference and its interval, as they were at each look"
    name, content = taken(f"PNG: {title}")
    assert name == "the-difference-and-its-interval-as-they-were-at-each-look.png"
    assert content.startswith(b"\x89PNG")
    _, content = taken(f"CSV: {title}")
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert rows[0] == ["Look", "Units", "Difference, points", "Interval"]
    assert len(rows) == 6
    assert page.locator("details[open] .rt-table").count() == 0
    page.goto(f"{live_server.url}/admin/serving/driftreport/{report.pk}/change/")
    _, content = taken("CSV: The questions that gave it away")
    assert list(csv.reader(io.StringIO(content.decode(), newline="")))[1][0] == '\'=1+1, "dear"?'

"""The pages of evaluations in a real browser: axe-core, keys, and a phone's width."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.test_accessibility import serious
from tests.factories import add_member, make_adapter, make_assistant, make_evaluation, make_turn, make_user
from tests.serving.test_pages import measured
from training.evaluation.declaring import declare_gate
from training.evaluation.gate import GateRule
from training.models import Evaluation, Judging, KnowledgeScore, Replay, ReplayAnswer

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
AXIS = "Chart.getChart(document.querySelector('canvas[data-chart]')).options.scales.y.ticks.color"
ESTIMATE = {"value": 0.03, "low": 0.01, "high": 0.05, "n": 40, "clusters": 20}


@pytest.fixture(scope="module")
def axe() -> Axe:
    return Axe()


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def evaluation(ada: User) -> Evaluation:
    """With another adapter on the same benchmark, a declared gate, a knowledge score, a judging and a replay."""
    assistant = make_assistant("bot", members={"admin": [ada]})
    evaluation = measured(assistant, items=12)
    row = {"adapter": "Adapter 1", "dataset": "Dataset 4", "seed": 2, "benchmark": "Held-out questions"}
    row |= {"threshold": 0.4486, "gate_version": 1, "verdict": "Not proven", "evaluation": evaluation.pk}
    evaluation.comparison["attempts"] = {
        "number": 3, "earlier": [{**row, "number": 1}, {**row, "number": 2, "seed": 3}], "confidence": 1 - 0.05 / 6,
        "alpha": 0.05 / 6, "low": -0.004, "threshold_read_off": "Held-out questions",
    }  # fmt: skip
    evaluation.save(update_fields=["comparison"])
    make_evaluation(make_adapter(assistant, number=7), benchmark=evaluation.benchmark, comparison=evaluation.comparison)
    declare_gate(assistant=assistant, rule=GateRule(alpha=0.01), reason="Stricter.", actor=ada, read_version=0)
    KnowledgeScore.objects.create(
        assistant=assistant, evaluation=evaluation, state="succeeded",
        results={"answers": 20, "arms": {}, "differences": {"retrieval": [ESTIMATE] * 6, "alone": [ESTIMATE] * 6}},
    )  # fmt: skip
    agreement = {"n": 40, "same": 0.8, "kappa": 0.64, "low": 0.4, "high": 0.8}
    counts = {"candidate": 20, "baseline": 8, "tie": 12}
    Judging.objects.create(
        assistant=assistant, evaluation=evaluation, state="succeeded", model="judge-large",
        results={"win_rate": ESTIMATE, "counts": counts, "consistent": 0.9, "unreadable": 1, "agreement": agreement},
    )  # fmt: skip
    found = {
        "answered": 3,
        "same": 1,
        "newly_declined": 1,
        "newly_answered": 0,
        "problems": 0,
        "groundedness": ESTIMATE,
    }
    replay = Replay.objects.create(
        assistant=assistant, chosen="newest", state="succeeded", results={"stored": found, "fresh": found}
    )
    for i in range(3):
        turn = make_turn(assistant, question=f"What does leaving cost, case {i}?")
        for mode in ("stored", "fresh"):
            ReplayAnswer.objects.create(
                replay=replay, turn=turn, mode=mode, text="The exit fee is £36. [1]", answered_at=turn.created_at,
                measures={"same": 0.0}, sources=[{"rank": 1, "title": "Leaving", "source": "leaving.md"}],
            )  # fmt: skip
    return evaluation


def addresses(evaluation: Evaluation) -> dict[str, str]:
    def change(name: str, row: Any) -> str:
        return reverse(f"admin:training_{name}_change", args=[row.pk])

    return {
        "before-after": reverse("dashboards:before-after", args=[evaluation.pk]) + "?show=all",
        "evaluate": reverse("admin:training_evaluation_add"),
        "gate": reverse("admin:training_gate", args=["bot"]),
        "replay": change("replay", Replay.objects.get()),
        "replay-start": reverse("admin:training_replay_add"),
        "replays": reverse("admin:training_replay_changelist"),
        "knowledge": change("knowledgescore", KnowledgeScore.objects.get()),
        "judging": change("judging", Judging.objects.get()),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding(
    live_server: LiveServer, reader: Page, axe: Axe, evaluation: Evaluation, ada: User, scheme: str
) -> None:
    log_in(reader, live_server, ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: dict[str, list[str]] = {}
    wide: list[str] = []
    for name, address in addresses(evaluation).items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            reader.goto(live_server.url + address)
            reader.wait_for_load_state("networkidle")
            reader.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
            shoot(reader, f"evaluation-{name}-{scheme}-{size[0]}", whole=True)
            if width_of(reader) > size[0]:
                wide.append(f"{name} {size[0]}: {width_of(reader)}")
            if name == "before-after":  # drawn before unfold had set the scheme, charts were dark on dark
                assert reader.evaluate(AXIS) == ("#cbd5e1" if scheme == "dark" else "#334155")
            if problems := serious(axe, reader):
                found[f"{name} {size[0]}"] = problems
    assert not found, "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)
    assert not wide


def test_w_and_l_lead_to_wins_and_losses(
    live_server: LiveServer, page: Page, evaluation: Evaluation, ada: User
) -> None:
    """Of twelve questions two are won and the third is lost."""
    log_in(page, live_server, ada)
    page.goto(live_server.url + addresses(evaluation)["before-after"])
    at = page.locator(".rt-at")
    page.keyboard.press("w")
    expect(at).to_contain_text("✓ win")
    first = at.inner_text()
    page.keyboard.press("w")
    assert at.inner_text() != first
    page.keyboard.press("l")
    expect(at).to_contain_text("✗ loss")
    page.keyboard.press("w")  # none is left on a page of all: the page of wins
    page.wait_for_url("**show=wins**")
    words = page.get_by_label("Words of the question")
    words.focus()
    page.keyboard.type("wl")
    expect(words).to_have_value("wl")


def test_people_of_other_assistants_are_refused(live_server: LiveServer, page: Page, evaluation: Evaluation) -> None:
    carol = make_user("carol")
    add_member(make_assistant("other"), carol, "admin")
    log_in(page, live_server, carol)
    for name, address in addresses(evaluation).items():
        if name in ("evaluate", "replay-start", "replays"):
            continue
        response = page.request.get(live_server.url + address, max_redirects=0)
        assert response.status in (302, 403, 404), name

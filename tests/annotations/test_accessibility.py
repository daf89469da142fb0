"""axe-core over the pages of this room, in both colour schemes and on a phone: nothing serious may be found.

Where a finding lies in markup that the admin's theme makes and we cannot set, it stands in `THEME` with the reason.
"""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from annotations.models import LiveAnswer, Queue, QueueItem
from annotations.services import adjudicate, submit
from serving.models import SuggestionRun
from tests.annotations.browsing import DESK, PHONE, resize
from tests.browser import log_in
from tests.factories import make_assistant, make_queue, make_turn, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]

SERIOUS = {"serious", "critical"}
RULES = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
THEME = {"color-contrast": (".text-link",)}  # dark: primary-500 on base-900 is 4.3:1 where 4.5 is asked for


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def queue(ada: User) -> Queue:
    """Two people disagree about one of three turns and agree about one; one is left."""
    ann, bob = make_user("ann"), make_user("bob")
    assistant = make_assistant(members={"annotator": [ann, bob], "reviewer": [ada], "admin": [ada]})
    turns = [make_turn(assistant, question=f"Question {i}: what is the exit fee?") for i in range(4)]
    queue = make_queue(
        assistant, turns=turns, labels_needed=2, guideline="## Good\n\nEvery claim is **cited**.",
        show_suggestions=True, ask_live=True,
    )  # fmt: skip
    LiveAnswer.objects.create(turn=turns[3], agent="base", version="0" * 16, text="The exit fee is £35. [1]", score=0.8)
    SuggestionRun.objects.create(assistant=assistant, queue=queue, agent="base", state="succeeded", stopped="Busy.")
    correction = "The exit fee is £35 for each fuel. [1]"
    for turn in turns[:3]:
        submit(turn=turn, annotator=ann, verdict="good", queue=queue, seconds=9, marks={1: "relevant"})
        submit(
            turn=turn, annotator=bob, verdict="bad", reasons=["incomplete"], correction=correction, queue=queue,
            note="Both fuels.", seconds=31, marks={1: "relevant", 2: "not_relevant"},
        )  # fmt: skip
    adjudicate(turn=turns[2], reviewer=ada, verdict="bad", reasons=["incomplete"], response=correction)
    return queue


@pytest.fixture(scope="module")
def axe() -> Axe:
    return Axe()


def serious(axe: Axe, page: Page) -> list[str]:
    """What would keep somebody from using the page, with the places."""
    found = axe.run(page, options=RULES).response["violations"]
    return [
        f"{rule['id']}: {rule['help']} at {node['target']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
        if not any(part in str(node["target"]) for part in THEME.get(rule["id"], ()))
    ]


def addresses(queue: Queue) -> dict[str, str]:
    split = QueueItem.objects.filter(queue=queue).split().first()
    assert split is not None
    return {
        "label": f"/admin/label/{queue.pk}/",
        "disagreements": f"/admin/adjudicate/{queue.pk}/",
        "adjudicate": f"/admin/adjudicate/{queue.pk}/{split.pk}/",
        "queues": "/admin/annotations/queue/",
        "queue": f"/admin/annotations/queue/{queue.pk}/change/",
        "fill": f"/admin/annotations/queue/{queue.pk}/add/",
        "annotations": "/admin/annotations/annotation/",
        "resolutions": "/admin/annotations/resolution/",
        "agreement": f"/admin/agreement/?queue={queue.pk}",
        "items": f"/admin/queue/{queue.pk}/items/",
        "machine labels": "/admin/annotations/machinelabel/",
        "comparisons": "/admin/annotations/comparisonround/",
        "mine": "/admin/label/mine/",
        "passes": "/admin/serving/suggestionrun/",
        "pass": f"/admin/serving/suggestionrun/{SuggestionRun.objects.get().pk}/change/",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding(
    live_server: LiveServer, reader: Page, axe: Axe, queue: Queue, ada: User, scheme: str
) -> None:
    log_in(reader, live_server, ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: dict[str, list[str]] = {}
    for name, address in addresses(queue).items():
        for size in (DESK, PHONE) if scheme == "light" else (DESK,):
            resize(reader, size)
            reader.goto(live_server.url + address)
            reader.wait_for_load_state("networkidle")
            if name == "label":  # with what machines say
                reader.keyboard.press("v")
                expect(reader.locator(".lb-suggestion")).to_be_visible()
            problems = serious(axe, reader)
            if problems:
                found[f"{name} {size[0]}"] = problems
    assert not found, "\n".join(f"{name}: {line}" for name, lines in found.items() for line in lines)


def test_axe_is_awake(reader: Page, axe: Axe) -> None:
    """The same check finds something on a page that deserves it."""
    reader.set_content("<html lang='en'><title>x</title><main><img src='a.png'><input></main></html>")
    assert {line.split(":")[0] for line in serious(axe, reader)} == {"image-alt", "label"}

"""The pages of a synthesis in a browser: keys, a phone, both colour schemes, and what axe-core says."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.conftest import quiet
from tests.annotations.test_accessibility import axe, serious
from tests.factories import make_assistant, make_user
from training.models import SpotCheck, Synthesis, SyntheticItem
from training.synthesis.plan import Plan
from training.synthesis.spot_checks import draw_sample

__all__ = ["axe", "quiet"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]

TEXT = "A gas safety check costs £72. It is free for homes on the priority register. The check takes 40 minutes."
DROPPED = {"verbatim": 7, "gives the answer": 11, "not retrieved": 16, "may be answered": 3}


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def synthesis(ada: User) -> Synthesis:
    assistant = make_assistant(members={"admin": [ada]})
    synthesis = Synthesis.objects.create(
        assistant=assistant, wanted=60, state="succeeded", plan=Plan().as_dict(), stopped_by="Enough were kept.",
    )  # fmt: skip
    contexts = {
        "passages": [{"rank": n, "title": "Safety › Checks", "source": "gas/safety.md", "text": TEXT} for n in (1, 2)],
        "evidence": [[1, 0, 0.8], [1, 2, 0.6]],
        "gold": [1, 0],
    }
    history = [{"role": "user", "content": "What is checked?"}, {"role": "assistant", "content": "The gas pipes."}]
    forms = ["single"] * 5 + ["follow_up", "comparison", "near_miss", "counterfactual", "missing"]
    dropped = [why for why, n in DROPPED.items() for _ in range(n)]
    SyntheticItem.objects.bulk_create(
        SyntheticItem(
            synthesis=synthesis, source="gas/safety.md", sentence=0, question=f"What does gas safety check {n} cost?",
            response="A gas safety check costs £72.", form=forms[n % len(forms)], contexts=contexts, dropped_by=why,
            note="“5” does not stand in its sentences" if why else "", task=f"x:{n}",
            kind="decline" if forms[n % len(forms)] in ("near_miss", "missing") else "answer",
            history=history if forms[n % len(forms)] == "follow_up" else [],
            lineage={"writer": "rule", "style": "lower unmarked"},
        )
        for n, why in enumerate([""] * 60 + dropped)
    )  # fmt: skip
    from training.synthesis.generate import funnel

    covered = {"chunks": 31, "of_chunks": 40, "documents": 12, "of_documents": 12}
    synthesis.funnel = funnel(synthesis) | {"covered": covered, "tokens": 0}
    synthesis.save()
    draw_sample(synthesis=synthesis, size=30, actor=ada)
    for n, check in enumerate(SpotCheck.objects.all()[:20]):
        SpotCheck.objects.filter(pk=check.pk).update(
            verdict="bad" if n < 2 else "good", reason="reads_badly" if n < 2 else "", checked_by=ada
        )
    return synthesis


def test_pages_can_be_used_by_everybody(
    reader: Page, axe: Axe, live_server: LiveServer, ada: User, synthesis: Synthesis
) -> None:
    log_in(reader, live_server, ada)
    base = f"{live_server.url}/admin/training/synthesis"
    for name, url in (
        ("start", f"{base}/add/"), ("page", f"{base}/{synthesis.pk}/change/"), ("checks", f"{base}/checks/"),
        ("check", f"{base}/{synthesis.pk}/check/"),
    ):  # fmt: skip
        for scheme in ("light", "dark"):
            reader.emulate_media(color_scheme=scheme)
            resize(reader, DESK)
            reader.goto(url)
            shoot(reader, f"synthesis_{name}_{scheme}", whole=True)
            assert serious(axe, reader) == [], name
        resize(reader, PHONE)
        shoot(reader, f"synthesis_{name}_phone", whole=True)
        assert width_of(reader) <= PHONE[0], name


def test_a_sample_is_looked_at_by_keys_alone(
    reader: Page, live_server: LiveServer, ada: User, synthesis: Synthesis
) -> None:
    log_in(reader, live_server, ada)
    reader.goto(f"{live_server.url}/admin/training/synthesis/{synthesis.pk}/check/")
    open_before = SpotCheck.objects.open().count()
    for key, left in (("g", 9), ("2", 8), ("b", 7), ("u", 8)):
        with reader.expect_navigation():
            reader.keyboard.press(key)
        reader.wait_for_selector(f"text={left} left")
    assert open_before == 10
    mine = SpotCheck.objects.done().exclude(checked_at=None)
    assert sorted(mine.values_list("verdict", "reason")) == [("bad", "wrong_answer"), ("good", "")]

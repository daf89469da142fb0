"""The pages of retrieval in a real browser: nothing serious for axe-core, and nothing sticks out on a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer

from assistants.performing import perform_here
from knowledge.configuration import RetrievalSettings
from knowledge.configuring import save_configuration
from knowledge.models import RetrievalCheck, VectorIndex
from knowledge.services import load_document
from tests.annotations.browsing import DESK, PHONE, log_in, resize, shoot, width_of
from tests.annotations.conftest import quiet
from tests.annotations.test_accessibility import axe, serious
from tests.factories import make_assistant, make_user
from tests.training.test_retrieval import DOCUMENTS, benchmark_of, resolved
from training.models import RetrievalComparison

__all__ = ["axe", "quiet"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def addresses(ada: User) -> dict[str, str]:
    bot = make_assistant("bot", members={"admin": [ada]})
    for path, text in DOCUMENTS.items():
        load_document(assistant=bot, path=path, data=text.encode())
    first = save_configuration(assistant=bot, name="By words alone", settings=RetrievalSettings(vectors=0, sentences=0))
    second = save_configuration(
        assistant=bot, name="Two passages", settings=RetrievalSettings(k=2), note="Less to read."
    )
    check = RetrievalCheck.objects.create(assistant=bot)
    comparison = RetrievalComparison.objects.create(
        assistant=bot, benchmark=benchmark_of(bot), first=first, second=second
    )
    for work in (check, comparison):
        perform_here(work)
    for i in range(24):
        resolved(bot, 0.55 + i / 100, "The fee is £35. [1]")
        resolved(bot, 0.30 + i / 70, bot.decline_sentence)
    index = VectorIndex.objects.create(
        assistant=bot, state="succeeded", chunks=60_000, ef_search=150, recall=0.9972, size=70 * 2**20
    )
    lab = reverse("admin:knowledge_retrieval_lab")
    return {
        "versions": reverse("admin:knowledge_retrievalconfiguration_changelist"),
        "version": reverse("admin:knowledge_retrievalconfiguration_change", args=[second.pk]),
        "new": reverse("admin:knowledge_retrievalconfiguration_add"),
        "lab": f"{lab}?assistant=bot&q=What+is+the+exit+fee%3F&first={first.number}&second={second.number}",
        "check": reverse("admin:knowledge_retrievalcheck_change", args=[check.pk]),
        "indexes": reverse("admin:knowledge_vectorindex_changelist"),
        "index": reverse("admin:knowledge_vectorindex_change", args=[index.pk]),
        "comparisons": reverse("admin:training_retrievalcomparison_changelist"),
        "comparison": reverse("admin:training_retrievalcomparison_change", args=[comparison.pk]) + "?show=all",
        "compare": reverse("admin:training_retrievalcomparison_add"),
        "threshold": reverse("admin:training_retrieval_threshold"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_readable_for_everybody(
    live_server: LiveServer, reader: Page, axe: Axe, addresses: dict[str, str], ada: User, scheme: str
) -> None:
    log_in(reader, live_server, ada)
    reader.add_init_script(f"localStorage.setItem('adminTheme', JSON.stringify('{scheme}'))")
    found: dict[str, list[str]] = {}
    wide: dict[str, float] = {}
    for name, address in addresses.items():
        reader.goto(f"{live_server.url}{address}")
        shoot(reader, f"retrieval_{name}_{scheme}")
        if problems := serious(axe, reader):
            found[name] = problems
        if scheme == "light":
            resize(reader, PHONE)
            shoot(reader, f"retrieval_{name}_phone")
            if (width := width_of(reader)) > PHONE[0]:
                wide[name] = width
            resize(reader, DESK)
    assert found == {}
    assert wide == {}

"""The pages of drift: who sees them, what they show, what they cost, what a click does."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotations.models import Queue
from capture.models import Turn
from serving.drift.models import DriftReport
from tests.factories import add_member, make_assistant, make_user
from tests.serving.drift.conftest import House
from training.rules.models import RetrainingProposal


def enter(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client


def page_of(report: DriftReport) -> str:
    return reverse("admin:serving_driftreport_change", args=[report.pk])


@pytest.fixture
def report(house: House) -> DriftReport:
    add_member(house.assistant, make_user("rob"), "reviewer")
    add_member(house.assistant, make_user("ann"), "annotator")
    make_assistant("other", members={"admin": [make_user("carol")]})
    house.turns(["fees"] * 40, timezone.now() - timedelta(days=2))
    house.turns(["solar"] * 40, timezone.now() - timedelta(days=1))
    return house.report()


def test_the_page_shows_what_gave_it_away(report: DriftReport) -> None:
    text = enter("ada").get(page_of(report)).content.decode()
    for said in ("Drift in this window", "solar", "How surely new", "Said more now", "Open a queue of them",
                 "Propose a retraining", "2 documents", "are gone"):  # fmt: skip
        assert said in text or said == "2 documents"
    changelist = enter("ada").get(reverse("admin:serving_driftreport_changelist")).content.decode()
    assert "Compare now" in changelist
    assert "Users ask something else" in changelist


def test_erased_words_stand_nowhere(report: DriftReport) -> None:
    Turn.objects.filter(question__icontains="solar").delete()
    text = enter("ada").get(page_of(report)).content.decode()
    assert "solar" not in text.casefold()


def test_who_may_see_and_act(report: DriftReport) -> None:
    export = reverse("dashboards:drift-json", args=[report.pk])
    for page in (page_of(report), export):
        assert enter("rob").get(page).status_code == 200
        for stranger in ("ann", "carol"):
            assert enter(stranger).get(page).status_code == 403
        assert Client().get(page).status_code == 302
    acts = [reverse("dashboards:drift-act", args=[report.pk, what]) for what in ("queue", "retrain")]
    for address in (*acts, reverse("dashboards:drift-start")):
        for refused in ("rob", "ann", "carol"):
            data = {"assistant": report.assistant_id, "size": "10"}
            assert enter(refused).post(address, data).status_code == 403
    assert not Queue.objects.exists()
    assert not RetrainingProposal.objects.exists()


def test_clicks(report: DriftReport) -> None:
    ada = enter("ada")
    ada.post(reverse("dashboards:drift-act", args=[report.pk, "queue"]), {"size": "10"})
    assert Queue.objects.get().items.count() == 10
    ada.post(reverse("dashboards:drift-act", args=[report.pk, "retrain"]))
    assert RetrainingProposal.objects.get().state == "open"
    ada.post(reverse("dashboards:drift-start"), {"assistant": report.assistant_id, "days": "3"})
    assert DriftReport.objects.count() == 2
    ada.post(reverse("dashboards:drift-start"), {"assistant": report.assistant_id, "days": "x" * 20})
    assert ada.post(reverse("dashboards:drift-start"), {"assistant": "9" * 30}).status_code == 404


def test_the_page_costs_the_same_with_more_windows(house: House, report: DriftReport) -> None:
    ada = enter("ada")

    def queries() -> int:
        ada.get(page_of(report))
        with CaptureQueriesContext(connection) as captured:
            assert ada.get(page_of(report)).status_code == 200
        return len(captured)

    before = queries()
    for days in (8, 16):
        DriftReport.objects.create(
            assistant=house.assistant, dataset=house.dataset, state="succeeded", verdict="too_few",
            since=timezone.now() - timedelta(days=days + 7), until=timezone.now() - timedelta(days=days),
        )  # fmt: skip
    assert queries() == before
    assert before <= 25

"""Retraining by rule: when it fires, that it fires once, what it starts, and who may."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotations.models import Resolution
from assistants.models import Assistant, AuditEvent
from tests.factories import make_assistant, make_document, make_turn, make_user
from tests.training.finetune.conftest import example, make_dataset
from training.models import DatasetVersion, Example, Run
from training.rules import firing
from training.rules.firing import accept, advance, check, check_all, dismiss, report_drift, since_last, standing
from training.rules.models import RetrainingProposal, RetrainingRule

State = RetrainingProposal.State


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(members={"admin": [make_user("ada")], "reviewer": [make_user("rob")]})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr("training.services.launch", calls.append)
    return calls


def rule(assistant: Assistant, **fields: Any) -> RetrainingRule:
    return RetrainingRule.objects.create(assistant=assistant, **{"enabled": True, "min_labels": 2, **fields})


def resolve(assistant: Assistant, count: int) -> None:
    for _ in range(count):
        Resolution.objects.create(turn=make_turn(assistant), verdict="good", response="Yes.", how="single")


def test_enough_new_labels_fire_once(assistant: Assistant) -> None:
    mine = rule(assistant)
    resolve(assistant, 1)
    assert check(mine) is None
    resolve(make_assistant(), 5)  # another's labels are nothing to this one
    assert check(mine) is None
    resolve(assistant, 1)
    proposal = check(mine)
    assert proposal is not None
    assert proposal.reasons == [{"kind": "labels", "sentence": "2 resolved labels are new so far."}]
    assert check(mine) is None  # one is open
    assert dismiss(proposal=proposal, actor=None)
    assert check(mine) is None  # it rests
    assert check(mine, now=timezone.now() + timedelta(days=2)) is not None


def test_only_what_is_new_counts(assistant: Assistant) -> None:
    resolve(assistant, 3)
    make_document(assistant)
    make_dataset(assistant)
    assert (since_last(assistant).labels, since_last(assistant).documents) == (0, 0)
    resolve(assistant, 1)
    make_document(assistant)
    since = since_last(assistant)
    assert (since.labels, since.documents) == (1, 1)
    mine = rule(assistant, min_labels=5, min_documents=1)
    told = {s.kind: (s.fires, s.left) for s in standing(mine, since)}
    assert told == {"labels": (False, "4 more labels"), "documents": (True, ""), "drift": (False, "a drift alarm")}


def test_weekly_waits_for_its_day_and_for_anything_new(assistant: Assistant) -> None:
    dataset = make_dataset(assistant)
    run = Run.objects.create(assistant=assistant, dataset=dataset, state="succeeded", prompt_digest="p")
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(days=8))
    mine = rule(assistant, min_labels=None, every_days=7)
    assert check(mine) is None  # nothing has changed since
    resolve(assistant, 1)
    soon = timezone.now() - timedelta(days=2)
    assert not any(s.fires for s in standing(mine, since_last(assistant), now=soon))
    proposal = check(mine)
    assert proposal is not None
    assert proposal.reasons[0]["kind"] == "schedule"


def test_a_drift_alarm_fires_a_rule_that_wants_it(assistant: Assistant) -> None:
    assert report_drift(assistant, "The questions have changed (AUC 0.71, p 0.005).") is None  # no rule
    mine = rule(assistant, on_drift=False)
    assert report_drift(assistant, "They have changed.") is None
    RetrainingRule.objects.filter(pk=mine.pk).update(on_drift=True)
    proposal = report_drift(assistant, "The questions have changed (AUC 0.71, p 0.005).")
    assert proposal is not None
    assert "AUC 0.71" in proposal.reasons[0]["sentence"]


def test_one_retraining_at_a_time_is_the_databases_word(assistant: Assistant) -> None:
    RetrainingProposal.objects.create(assistant=assistant)
    with pytest.raises(IntegrityError), transaction.atomic():
        RetrainingProposal.objects.create(assistant=assistant, state=State.TRAINING)
    RetrainingProposal.objects.create(assistant=assistant, state=State.DONE)


@pytest.mark.usefixtures("run_settings")
def test_accepting_builds_then_trains_and_never_promotes(
    assistant: Assistant, started: list[Any], base: Path, django_capture_on_commit_callbacks: Any
) -> None:
    last = make_dataset(assistant, recipe={"seed": 9})
    resolve(assistant, 2)
    proposal = check(rule(assistant))
    assert proposal is not None
    with django_capture_on_commit_callbacks(execute=True):
        assert accept(proposal=proposal, actor=None)
        assert not accept(proposal=proposal, actor=None)  # a second press changes nothing
    proposal.refresh_from_db()
    assert proposal.state == State.BUILDING
    assert proposal.dataset in started
    assert proposal.dataset is not None
    assert proposal.dataset.number == last.number + 1
    assert proposal.dataset.recipe["seed"] == 9  # by the recipe of the last one

    advance(proposal)
    assert proposal.state == State.BUILDING  # it waits for the build
    Example.objects.bulk_create(example(proposal.dataset, i, Example.Split.TRAIN) for i in range(4))
    DatasetVersion.objects.filter(pk=proposal.dataset_id).update(state="succeeded", rows=4)
    with django_capture_on_commit_callbacks(execute=True):
        check_all()
    proposal.refresh_from_db()
    assert (proposal.state, proposal.run) == (State.TRAINING, Run.objects.get())
    Run.objects.update(state="succeeded", finished_at=timezone.now())
    check_all()
    proposal.refresh_from_db()
    assert proposal.state == State.DONE
    assert not AuditEvent.objects.filter(action__startswith="adapter.").exists()


def test_what_fails_says_why_and_makes_room(assistant: Assistant, started: list[Any]) -> None:
    rule(assistant, action="start")
    resolve(assistant, 2)
    check_all()
    proposal = RetrainingProposal.objects.get()
    assert proposal.state == State.BUILDING
    assert proposal.dataset is not None
    DatasetVersion.objects.filter(pk=proposal.dataset_id).update(state="failed", error="No row is left.")
    check_all()
    proposal.refresh_from_db()
    assert proposal.state == State.FAILED
    assert "No row is left." in proposal.error
    assert not proposal.is_active


def test_one_rules_trouble_is_not_anothers(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_assistant()
    for one in (assistant, other):
        rule(one)
        resolve(one, 2)
    real = firing.since_last

    def fail(which: Assistant) -> Any:
        if which == assistant:
            raise RuntimeError("broken")
        return real(which)

    monkeypatch.setattr(firing, "since_last", fail)
    check_all()
    assert RetrainingProposal.objects.get().assistant == other


def login(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password="tulip-cable-96")
    return client


def test_the_page_shows_the_rule_and_lets_admins_change_it(
    assistant: Assistant, django_assert_num_queries: Any, django_capture_on_commit_callbacks: Any
) -> None:
    make_assistant(members={"admin": [make_user("eve")]})
    url = reverse("admin:training_retrainingrule_of", args=[assistant.pk])
    assert Client().get(url).status_code == 302
    assert login("eve").get(url).status_code == 404
    assert "Save the rule" not in login("rob").get(url).content.decode()
    values = {"enabled": "on", "action": "propose", "min_labels": 3, "every_days": 7, "rest_days": 1}
    assert login("rob").post(url, values).status_code == 403
    bad = login("ada").post(url, {**values, "min_labels": 0})
    assert "greater than or equal to 1" in bad.content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        assert login("ada").post(url, values).status_code == 302
    saved = RetrainingRule.objects.get()
    assert (saved.min_labels, saved.every_days, saved.on_drift, saved.min_documents) == (3, 7, False, None)
    changed = AuditEvent.objects.get(action="retraining.rule_changed")
    assert changed.details["min_labels"] == [100, 3]

    resolve(assistant, 3)
    proposal = check(saved)
    assert proposal is not None
    page = login("ada").get(url).content.decode()
    assert "3 resolved labels are new so far." in page
    decide = reverse("admin:training_retrainingrule_decide", args=[proposal.pk, "dismiss"])
    assert login("rob").post(decide).status_code == 404
    assert login("eve").post(decide).status_code == 404
    assert login("ada").get(decide).status_code == 405
    assert login("ada").post(decide).status_code == 302
    proposal.refresh_from_db()
    assert proposal.state == State.DISMISSED
    changelist = login("ada").get(reverse("admin:training_retrainingrule_changelist"))
    assert changelist.status_code == 200


def test_the_number_of_queries_does_not_grow(assistant: Assistant, django_assert_max_num_queries: Any) -> None:
    rule(assistant)
    RetrainingProposal.objects.bulk_create(RetrainingProposal(assistant=assistant, state=State.DONE) for _ in range(15))
    client = login("ada")
    with django_assert_max_num_queries(24):
        client.get(reverse("admin:training_retrainingrule_of", args=[assistant.pk]))

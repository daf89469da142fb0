"""Reports: what they find, when they alarm, what a click makes of them, and what they leave behind after an erasure."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from annotations.models import Queue
from assistants.models import AuditEvent
from assistants.services import issue_key
from capture.models import Turn
from serving.drift.models import DriftReport
from serving.drift.services import DriftRefused, open_queue, propose_retraining, report_all, start_report
from serving.models import Deployment
from tests.factories import make_adapter, make_assistant, make_document, make_feedback
from tests.serving.drift.conftest import House
from training.models import Example
from training.rules.models import RetrainingProposal

NOW = timezone.now()


def test_new_topics_are_found_and_their_questions_come_first(house: House) -> None:
    house.turns(["fees"] * 50, NOW - timedelta(days=2))
    solar = {str(turn.pk) for turn in house.turns(["solar"] * 30, NOW - timedelta(days=1))}
    report = house.report()
    assert report.verdict == "drift"
    assert report.results["auc"] > 0.55
    assert report.results["p"] <= 0.05
    assert report.results["mmd_p"] <= 0.05
    assert report.results["logged"] is True
    assert (report.results["n_now"], report.results["n_before"]) == (80, 120)
    first = [key for key, _ in report.now[:20]]
    assert len(solar & set(first)) >= 14
    assert "Users ask something else" in report.sentence
    assert report.alarm is False  # once is no alarm


def test_the_same_questions_are_no_drift(house: House) -> None:
    house.turns(["fees"] * 80, NOW - timedelta(days=1))
    report = house.report()
    assert report.verdict == "same"
    assert "No change is shown" in report.sentence


def test_what_the_house_asked_in_the_playground_is_no_traffic(house: House) -> None:
    house.turns(["fees"] * 60, NOW - timedelta(days=2))
    house.turns(["solar"] * 60, NOW - timedelta(days=1), tags=["playground"], declined=True)
    report = house.report()
    assert report.verdict == "same"
    assert report.results["n_now"] == 60
    assert report.results["behaviour"]["turns"] == 60
    assert report.results["behaviour"]["declined"] == 0
    key, _ = issue_key(assistant=house.assistant, name="theirs", scopes=["log"])
    house.turns(["solar"] * 60, NOW - timedelta(hours=20), tags=["playground"], api_key=key)
    assert house.report().results["n_now"] == 120  # a chatbot may call its own users so


def test_two_windows_running_raise_the_alarm(house: House) -> None:
    for days in (10, 2):
        house.turns(["solar"] * 60, NOW - timedelta(days=days))
    first = house.report(until=NOW - timedelta(days=7))
    overlapping = house.report(until=NOW - timedelta(days=1))
    second = house.report(until=NOW)
    assert [first.verdict, overlapping.verdict, second.verdict] == ["drift"] * 3
    assert [first.alarm, overlapping.alarm, second.alarm] == [False, False, True]
    assert "window before" in second.sentence


def test_too_few_say_so(house: House) -> None:
    house.turns(["fees"] * 10, NOW - timedelta(days=1))
    report = house.report()
    assert report.verdict == "too_few"
    assert "10 of the window" in report.sentence


def test_one_of_each_conversation_and_nothing_that_was_learnt(house: House) -> None:
    turns = house.turns(["solar"] * 60, NOW - timedelta(days=1))
    Turn.objects.filter(pk__in=[turn.pk for turn in turns[:30]]).update(conversation=turns[0].conversation)
    Example.objects.filter(position=0).update(turn=turns[59])
    assert house.report().results["n_now"] == 30


def test_written_questions_stand_in_where_few_were_logged(house: House) -> None:
    Example.objects.update(turn=None)
    for row in Example.objects.all():
        Example.objects.filter(pk=row.pk).update(question=f"Question {row.pk} about fees?")
    house.turns(["fees"] * 60, NOW - timedelta(days=1))
    report = house.report()
    assert (report.results["logged"], report.results["n_before"]) == (False, 120)


def test_what_needs_no_test(house: House) -> None:
    turns = house.turns(["fees"] * 60, NOW - timedelta(days=1), declined=True)
    make_feedback(turns[0], value=-1)
    make_feedback(turns[1], value=1)
    make_document(house.assistant, path="fees.md")
    results = house.report().results
    assert results["behaviour"] == {"turns": 60, "declined": 1.0, "rated": 2, "down": 0.5}
    assert results["documents"] == {"cited": 2, "changed": 1, "gone": 1, "paths": ["fees.md", "gone.md"]}
    assert results["wording"]["now"]["median_words"] > 3
    assert results["wording"]["now"]["languages"].get("en", 0) > 0.5


def test_refusals(house: House) -> None:
    with pytest.raises(DriftRefused, match="days"):
        start_report(assistant=house.assistant, actor=None, days=0)
    with pytest.raises(DriftRefused, match="base model is live"):
        start_report(assistant=make_assistant(), actor=None)
    Deployment.objects.update(adapter=make_adapter(house.assistant, number=2))
    with pytest.raises(DriftRefused, match="not trained here"):
        start_report(assistant=house.assistant, actor=None)
    assert report_all() == 0


def test_one_report_at_a_time(house: House) -> None:
    report = house.report()
    DriftReport.objects.filter(pk=report.pk).update(state="running")
    with pytest.raises(DriftRefused, match="already"):
        start_report(assistant=house.assistant, actor=None)


def test_every_week_all_of_them(house: House) -> None:
    assert report_all() == 1
    assert AuditEvent.objects.get(action="drift.started").actor_name == "system"


def test_a_click_opens_a_queue_of_the_most_telling(house: House) -> None:
    house.turns(["fees"] * 50, NOW - timedelta(days=2))
    house.turns(["solar"] * 30, NOW - timedelta(days=1))
    report = house.report()
    queue = open_queue(report=report, actor=house.ada, size=10)
    inside = {str(key) for key in queue.items.values_list("turn", flat=True)}
    assert inside == {key for key, _ in report.now[:10]}
    assert open_queue(report=report, actor=house.ada, size=10).name == f"{queue.name} (2)"
    assert AuditEvent.objects.filter(action="drift.queue").count() == 2
    with pytest.raises(DriftRefused):
        open_queue(report=report, actor=house.ada, size=0)
    Turn.objects.filter(pk__in=[key for key, _ in report.now]).delete()
    with pytest.raises(DriftRefused, match="there any more"):
        open_queue(report=report, actor=house.ada, size=10)
    assert Queue.objects.count() == 2


def test_a_click_proposes_a_retraining_once(house: House) -> None:
    house.turns(["solar"] * 60, NOW - timedelta(days=1))
    report = house.report()
    proposal = propose_retraining(report=report, actor=house.ada)
    assert proposal.reasons[0]["sentence"] == report.sentence
    with pytest.raises(DriftRefused, match="already"):
        propose_retraining(report=report, actor=house.ada)
    assert RetrainingProposal.objects.count() == 1
    report.verdict = DriftReport.Verdict.SAME
    with pytest.raises(DriftRefused, match="no drift"):
        propose_retraining(report=report, actor=house.ada)


def test_a_report_holds_no_words_of_users(house: House) -> None:
    house.turns(["solar"] * 60, NOW - timedelta(days=1))
    report = house.report()
    for stored in (report.results, report.now, report.before, report.sentence):
        assert "solar" not in str(stored).casefold()

"""What may go live, what comes back, and who is named for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections, transaction

from assistants.models import Assistant, AuditEvent
from serving.experiments.models import Experiment
from serving.experiments.plan import Plan
from serving.experiments.services import start
from serving.models import Deployment, Promotion
from serving.services import PromotionRefused, deployment_of, promote, roll_back
from tests.factories import make_adapter, make_assistant, make_evaluation, make_user
from training.models import Adapter


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant("bot")


@pytest.fixture
def adapter(assistant: Assistant) -> Adapter:
    return make_adapter(assistant)


def live(assistant: Assistant) -> tuple[Adapter | None, Adapter | None, bool]:
    deployment = Deployment.objects.get(assistant=assistant)
    return deployment.adapter, deployment.previous, deployment.has_previous


def test_a_passed_gate_opens_the_way(assistant: Assistant, adapter: Adapter) -> None:
    alice = make_user("alice")
    evaluation = make_evaluation(adapter, verdict="passed")
    promotion = promote(assistant=assistant, adapter=adapter, evaluation=evaluation, actor=alice, reason=" go ")
    assert live(assistant) == (adapter, None, True)
    assert (promotion.action, promotion.from_adapter, promotion.to_adapter) == ("promote", None, adapter)
    assert (promotion.overrides_gate, promotion.reason, promotion.evaluation) == (False, "go", evaluation)
    event = AuditEvent.objects.get(action="adapter.promote")
    assert (event.assistant, event.actor, event.target, event.reason) == (assistant, alice, "Adapter 1", "go")
    assert event.details == {"from": "base model", "overrides_gate": False}


def test_rolling_back_is_one_step_and_twice_returns(assistant: Assistant, adapter: Adapter) -> None:
    second = make_adapter(assistant, number=2)
    for one in (adapter, second):
        promote(assistant=assistant, adapter=one, evaluation=make_evaluation(one, verdict="passed"), actor=None)
    assert live(assistant) == (second, adapter, True)
    roll_back(assistant=assistant, actor=None, reason="worse answers")
    assert live(assistant) == (adapter, second, True)
    roll_back(assistant=assistant, actor=None, reason="no, better")
    assert live(assistant) == (second, adapter, True)
    assert [p.action for p in Promotion.objects.order_by("pk")] == ["promote", "promote", "roll_back", "roll_back"]
    assert AuditEvent.objects.filter(action="adapter.roll_back").count() == 2


def test_the_base_model_can_come_back(assistant: Assistant, adapter: Adapter) -> None:
    promote(assistant=assistant, adapter=adapter, evaluation=make_evaluation(adapter, verdict="passed"), actor=None)
    promotion = roll_back(assistant=assistant, actor=None, reason="users complain")
    assert (promotion.to_adapter, live(assistant)) == (None, (None, adapter, True))


def test_who_takes_back_what_another_has_taken_back_changes_nothing(assistant: Assistant, adapter: Adapter) -> None:
    promote(assistant=assistant, adapter=adapter, evaluation=make_evaluation(adapter, verdict="passed"), actor=None)
    roll_back(assistant=assistant, actor=None, reason="users complain", seen=str(adapter.pk))
    with pytest.raises(PromotionRefused, match="The base model is live by now"):
        roll_back(assistant=assistant, actor=None, reason="users complain", seen=str(adapter.pk))
    assert live(assistant) == (None, adapter, True)
    roll_back(assistant=assistant, actor=None, reason="no, better", seen="")
    assert live(assistant) == (adapter, None, True)


def test_what_may_not_meet_users_does_not_come_back(assistant: Assistant, adapter: Adapter) -> None:
    second = make_adapter(assistant, number=2)
    for one in (adapter, second):
        promote(assistant=assistant, adapter=one, evaluation=make_evaluation(one, verdict="passed"), actor=None)
    Adapter.objects.filter(pk=adapter.pk).update(prompt_digest="f" * 16)
    promotion = roll_back(assistant=assistant, actor=None, reason="worse answers")
    assert live(assistant) == (None, second, True)
    assert promotion.reason.startswith("worse answers (Adapter 1 ")
    Adapter.objects.filter(pk=second.pk).update(prompt_digest="f" * 16)
    with pytest.raises(PromotionRefused, match="Adapter 2"):
        roll_back(assistant=assistant, actor=None, reason="back again")


def held_up(assistant: Assistant, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """What ``second`` gives or raises, that begins while ``first`` has done its step and not yet committed it."""
    said: list[Any] = []

    def other() -> None:
        try:
            said.append(second())
        except Exception as error:
            said.append(error)
        finally:
            connections.close_all()

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with transaction.atomic(), connection.cursor() as cursor:
        first()
        thread = threading.Thread(target=other)
        thread.start()
        for _ in range(500):
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(waiting)
            if cursor.fetchone()[0]:
                break
            time.sleep(0.02)
        else:
            pytest.fail("nobody waits")
    thread.join(30)
    return said[0]


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_another_step_sees_what_it_did() -> None:
    assistant = make_assistant("bot")
    one, two, three = (make_adapter(assistant, number=number) for number in (1, 2, 3))

    def go(adapter: Adapter) -> Promotion:
        passed = make_evaluation(adapter, verdict="passed")
        return promote(assistant=assistant, adapter=adapter, evaluation=passed, actor=None)

    go(one)
    promotion = held_up(assistant, lambda: go(two), lambda: go(three))
    assert promotion.from_adapter == two
    assert live(assistant) == (three, two, True)
    back = held_up(
        assistant, lambda: go(one), lambda: roll_back(assistant=assistant, actor=None, reason="worse answers")
    )
    assert (back.from_adapter, back.to_adapter) == (one, three)
    assert live(assistant) == (three, one, True)

    def begin(adapter: Adapter) -> Experiment:
        return start(assistant=assistant, adapter=adapter, plan=Plan(), evaluation=None, actor=None)

    refused = held_up(assistant, lambda: begin(one), lambda: go(two))
    assert isinstance(refused, PromotionRefused)
    assert "Take its candidate back first" in str(refused)
    begun = held_up(assistant, lambda: go(one), lambda: begin(two))
    assert isinstance(begun, Experiment)  # the one that ran ended with the promotion of its candidate
    assert Deployment.objects.get(assistant=assistant).experiment == begun


@pytest.mark.parametrize("verdict", ["not_proven", "worse", ""])
def test_without_a_passed_gate_only_a_reason_helps(assistant: Assistant, adapter: Adapter, verdict: str) -> None:
    evaluation = make_evaluation(adapter, verdict=verdict) if verdict else None
    call: dict[str, Any] = {"assistant": assistant, "adapter": adapter, "evaluation": evaluation, "actor": None}
    with pytest.raises(PromotionRefused, match="not passed the gate"):
        promote(**call, reason="I want it")
    with pytest.raises(PromotionRefused, match="needs a reason"):
        promote(**call, override=True, reason="   ")
    promotion = promote(**call, override=True, reason="the pilot group asked for it")
    assert promotion.overrides_gate
    assert AuditEvent.objects.get(action="adapter.promote").details["overrides_gate"] is True


def test_refusals_change_nothing(assistant: Assistant, adapter: Adapter) -> None:
    passed = make_evaluation(adapter, verdict="passed")
    stranger = make_adapter(make_assistant())
    foreign = make_adapter(assistant, number=2, prompt_digest="f" * 16)
    other = make_adapter(assistant, number=3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"adapter": stranger, "evaluation": make_evaluation(stranger, verdict="passed")}, "another assistant"),
        ({"adapter": foreign, "evaluation": make_evaluation(foreign, verdict="passed")}, "Train a new adapter"),
        ({"adapter": other, "evaluation": passed}, "says nothing about"),
        ({"adapter": other, "evaluation": passed, "override": True, "reason": "x"}, "says nothing about"),
    ]
    for call, sentence in cases:
        with pytest.raises(PromotionRefused, match=sentence):
            promote(assistant=assistant, actor=None, **call)
    for reason in ("", "a reason"):
        with pytest.raises(PromotionRefused):
            roll_back(assistant=assistant, actor=None, reason=reason)
    promote(assistant=assistant, adapter=adapter, evaluation=passed, actor=None)
    with pytest.raises(PromotionRefused, match="live already"):
        promote(assistant=assistant, adapter=adapter, evaluation=passed, actor=None)
    assert Promotion.objects.count() == 1
    assert deployment_of(assistant).adapter == adapter


def test_a_verdict_of_an_older_gate_opens_nothing(assistant: Assistant, adapter: Adapter) -> None:
    from training.evaluation.declaring import declare_gate
    from training.evaluation.gate import GateRule

    evaluation = make_evaluation(adapter, verdict="passed")
    declared = declare_gate(
        assistant=assistant, rule=GateRule(minimum_gain=0.05), reason="stricter", actor=None, read_version=0
    )
    with pytest.raises(PromotionRefused, match="declared anew"):
        promote(assistant=assistant, adapter=adapter, evaluation=evaluation, actor=None)
    newer = make_evaluation(adapter, verdict="passed", gate_version=declared.version)
    assert not promote(assistant=assistant, adapter=adapter, evaluation=newer, actor=None).overrides_gate


def test_what_holds_erased_rows_does_not_go_live(assistant: Assistant) -> None:
    from training.models import DatasetVersion, Run

    dataset = DatasetVersion.objects.create(assistant=assistant, number=1, state="succeeded", rows=9, erased_rows=1)
    adapter = make_adapter(assistant, run=Run.objects.create(assistant=assistant, dataset=dataset))
    with pytest.raises(PromotionRefused, match="erased since"):
        promote(
            assistant=assistant, adapter=adapter, evaluation=make_evaluation(adapter, verdict="passed"), actor=None,
            override=True, reason="never mind",
        )  # fmt: skip

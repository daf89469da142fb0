"""The minute's pass: outcomes as they become known, guardrails that act by themselves, steps by rule."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from assistants.models import Assistant, AuditEvent
from capture.models import Receipt, Turn
from serving.experiments import exposures, rules
from serving.experiments.looking import look
from serving.experiments.measuring import asks_again, measure
from serving.experiments.models import Experiment, ExperimentLook, Exposure, ShadowAnswer
from serving.experiments.services import step
from serving.models import Deployment
from serving.services import PromotionRefused
from tests.factories import make_conversation, make_feedback, make_turn
from tests.serving.experiments.conftest import Bot


def exposure_of(turn: Turn | None) -> Exposure:
    assert turn is not None
    return Exposure.objects.get(turn=turn)


def measured(experiment: Experiment) -> None:
    exposures.flush()
    measure(experiment, now=timezone.now())


def test_outcomes_are_read_from_what_was_logged(bot: Bot) -> None:
    experiment = bot.in_ab()
    plain = bot.ask("plain")
    down = bot.ask("down", thumb=-1)
    up = bot.ask("up", thumb=1)
    declined = bot.ask("declined", declined=True)
    rated = bot.ask("rated")
    assert rated is not None
    make_feedback(rated, kind="rating", value=2)
    corrected = bot.ask("corrected")
    assert corrected is not None
    make_feedback(corrected, kind="correction", value=None, text="No, £40.")
    handed = bot.ask("handed", outcome="escalated")
    invented = bot.ask("invented", response="The fee is £99 and a penguin. [1]")
    measured(experiment)
    assert [exposure_of(one).down for one in (plain, down, up, rated)] == [None, True, False, True]
    assert [exposure_of(one).declined for one in (plain, declined)] == [False, True]
    assert [exposure_of(one).corrected for one in (plain, corrected)] == [False, True]
    assert [exposure_of(one).escalated for one in (plain, handed)] == [False, True]
    assert [exposure_of(one).unsupported for one in (plain, invented, declined)] == [False, True, None]
    assert exposure_of(plain).latency_ms == 200
    make_feedback(exposure_of(plain).turn, value=-1)  # a day later
    measured(experiment)
    assert exposure_of(plain).down is True


def test_asking_the_same_again_is_noticed(bot: Bot) -> None:
    experiment = bot.in_ab()
    now = timezone.now()
    talk = make_conversation(bot.assistant)
    first = bot.ask(
        "a", conversation=talk, question="What does leaving a plan cost?", at=now - timedelta(minutes=9)
    )  # fmt: skip
    second = bot.ask(
        "a", conversation=talk, question="the cost of leaving my plan", at=now - timedelta(minutes=7)
    )  # fmt: skip
    third = bot.ask("a", conversation=talk, question="And moving house?", at=now - timedelta(minutes=6))
    old = bot.ask("b", at=now - timedelta(minutes=30))
    measured(experiment)
    assert [exposure_of(one).reformulated for one in (first, second, third, old)] == [True, False, None, False]


@pytest.mark.parametrize(
    ("first", "then", "again"),
    [
        ("What does leaving cost?", "leaving: what cost", True),
        ("What does leaving cost?", "What does moving cost?", False),
        ("fees?", "fees?", False),
        ("Where is the meter of my flat", "Thank you very much", False),
    ],
)
def test_most_of_the_words_are_the_same(first: str, then: str, again: bool) -> None:
    assert asks_again(first, then) is again


def test_an_answer_that_never_came_counts_as_failed(bot: Bot) -> None:
    experiment = bot.in_ab()
    hour = timezone.now() - timedelta(hours=1)
    bot.ask("gone", answered=False, at=hour)
    bot.ask("waits", answered=False, at=hour)
    exposures.flush()
    waits = Exposure.objects.get(client_id__contains="waits")
    Receipt.objects.create(assistant=bot.assistant, client_id=waits.client_id, payload_digest="x")
    bot.ask("just now", answered=False, at=timezone.now())
    measured(experiment)
    assert [one.failed for one in Exposure.objects.order_by("client_id")] == [True, False, False]
    gone = Exposure.objects.get(failed=True)
    name = (bot.candidate if gone.arm == "candidate" else bot.live).engine_name
    turn = make_turn(bot.assistant, client_id=gone.client_id, adapter=name)  # it was spooled
    measured(experiment)
    assert exposure_of(turn).failed is False


def test_what_the_base_answers_in_an_arms_place_is_no_answer_of_the_arm(bot: Bot) -> None:
    experiment = bot.in_ab()
    turns = [turn for i in range(20) if (turn := bot.ask(f"unit {i}", declined=True))]
    Turn.objects.filter(pk__in=[turn.pk for turn in turns], adapter=bot.candidate.engine_name).update(adapter="")
    measured(experiment)
    assert {(one.arm, one.failed) for one in Exposure.objects.all()} == {("candidate", True), ("control", False)}
    outcomes = look(experiment, now=timezone.now())["outcomes"]
    assert outcomes["failed"]["candidate"]["mean"] == 1
    assert outcomes["declined"]["candidate"]["n"] == outcomes["trouble"]["candidate"]["n"] == 0
    assert outcomes["declined"]["control"]["mean"] == 1


def fill(bot: Bot, experiment: Experiment, n: int, **bad: float) -> None:
    """``n`` units in each arm, written as measured; ``bad``: outcome to the candidate's share (the control's is .1)."""
    turn = make_turn(bot.assistant, contexts=())
    now = timezone.now() - timedelta(minutes=5)
    rows = []
    for arm in ("control", "candidate"):
        for i in range(n):
            rows.append(
                Exposure(
                    experiment=experiment, client_id=f"{arm}{i}-{experiment.epoch}", unit=f"{arm}-{i}", arm=arm,
                    epoch=experiment.epoch, at=now, turn=turn, corrected=False, reformulated=False, slow=False,
                    declined=i < n * (bad.get("declined", 0.1) if arm == "candidate" else 0.1),
                    escalated=i < n * (bad.get("escalated", 0.1) if arm == "candidate" else 0.1),
                    down=i < n * (bad.get("down", 0.1) if arm == "candidate" else 0.1),
                )
            )  # fmt: skip
    Exposure.objects.bulk_create(rows)


def passed(experiment: Experiment) -> Experiment:
    """A pass without reading outcomes again: these rows all lead to one turn."""
    rules.measure, kept = (lambda *_a, **_k: None), rules.measure
    try:
        assert rules.run_all() == 1
    finally:
        rules.measure = kept
    experiment.refresh_from_db()
    return experiment


def test_a_bad_candidate_is_taken_back_by_itself_and_told_why(bot: Bot) -> None:
    experiment = bot.in_ab()  # steps by hand: guardrails act all the same
    fill(bot, experiment, 150, declined=0.6)
    assert passed(experiment).ending == "guardrail"
    assert "“Declined” 60.0% instead of 10.0%" in experiment.reason
    assert bot.choose(conversation="anybody") == (bot.live, None)
    event = AuditEvent.objects.get(action="experiment.take_back")
    assert (event.actor_name, event.reason) == ("system", experiment.reason)


def test_a_harmless_candidate_stays(bot: Bot) -> None:
    experiment = bot.in_ab()
    fill(bot, experiment, 150)
    assert passed(experiment).is_running
    result = ExperimentLook.objects.get().result
    assert result["verdict"] == "open"
    assert result["units"] == {"control": 150, "candidate": 150}
    assert result["responded"] == {"control": 1.0, "candidate": 1.0}
    assert not any(one["tripped"] for one in result["guardrails"])
    assert "Go on" in result["advice"] or "plan ends" in result["advice"]


def test_a_unit_weighs_the_same_however_much_it_asks(bot: Bot) -> None:
    experiment = bot.in_ab()
    fill(bot, experiment, 60, escalated=0.0)
    chatty = Exposure.objects.filter(arm="candidate").first()
    assert chatty is not None
    for i in range(200):
        chatty.pk, chatty.client_id, chatty.escalated = None, f"more-{i}", True
        chatty.save(force_insert=True)
    outcome = look(experiment, now=timezone.now())["outcomes"]["escalated"]
    assert outcome["candidate"]["n"] == 60
    assert outcome["candidate"]["mean"] < 0.02


def test_by_rule_a_better_candidate_goes_live(bot: Bot) -> None:
    experiment = bot.start(by_rule=True, shadow_pairs=1, canary_units=100, ab_share=0.5)
    turn = make_turn(bot.assistant)
    ShadowAnswer.objects.create(experiment=experiment, turn=turn, arm="candidate", text="x")
    assert passed(experiment).stage == "canary"
    experiment.share = 0.5  # so that equal arms fit it
    experiment.save()
    fill(bot, experiment, 120)
    assert passed(experiment).stage == "ab"
    assert passed(experiment).stage == "ab"  # counting began anew
    fill(bot, experiment, 400, escalated=0.0, down=0.0)
    assert passed(experiment).ending == "promoted"
    assert Deployment.objects.get(assistant=bot.assistant).adapter == bot.candidate
    assert list(experiment.steps.order_by("pk").values_list("action", "actor")) == [
        ("shadow", bot.ada.pk), ("canary", None), ("ab", None), ("promote", None),
    ]  # fmt: skip


def test_by_rule_nothing_meets_users_without_the_gate(bot: Bot) -> None:
    bot.candidate.evaluations.update(verdict="not_proven")
    experiment = bot.start(by_rule=True, shadow_pairs=0)
    assert passed(experiment).stage == "shadow"
    assert "gate is not passed" in experiment.notice


def test_a_step_that_is_refused_says_why(bot: Bot) -> None:
    experiment = bot.start(by_rule=True, shadow_pairs=0)
    Assistant.objects.filter(pk=bot.assistant.pk).update(evidence_threshold=0.4)  # since the evaluation
    rules.run_all()
    experiment.refresh_from_db()
    assert experiment.stage == "shadow"
    assert "threshold for declining" in experiment.notice


def test_a_candidate_that_fails_or_declines_in_shadow_waits_for_a_person(bot: Bot) -> None:
    experiment = bot.start(by_rule=True, shadow_pairs=2)
    for _ in range(3):
        ShadowAnswer.objects.create(
            experiment=experiment, turn=make_turn(bot.assistant), arm="candidate", declined=True
        )  # fmt: skip
    assert passed(experiment).stage == "shadow"
    assert "declines" in experiment.notice
    ShadowAnswer.objects.update(error="PromptTooLong")
    ShadowAnswer.objects.filter(pk__in=ShadowAnswer.objects.values("pk")[:2]).update(error="")
    assert "gave no answer" in passed(experiment).notice


def test_shares_that_do_not_come_out_stop_what_goes_by_itself(bot: Bot) -> None:
    experiment = bot.in_ab(by_rule=True)
    fill(bot, experiment, 300, escalated=0.0, down=0.0)
    Exposure.objects.filter(arm="candidate", unit__regex="[02579]$").delete()
    assert passed(experiment).stage == "ab"
    assert "do not get their shares" in experiment.notice


def test_time_ends_what_shows_nothing(bot: Bot) -> None:
    experiment = bot.in_ab(by_rule=True, days=1)
    fill(bot, experiment, 60)
    Experiment.objects.update(stage_since=timezone.now() - timedelta(days=2))
    assert passed(experiment).ending == "stopped"
    assert Deployment.objects.get(assistant=bot.assistant).adapter == bot.live


def test_another_prompt_format_ends_it(bot: Bot) -> None:
    experiment = bot.in_ab()
    bot.assistant.instructions = "Be brief."
    bot.assistant.save()
    assert passed(experiment).ending == "stopped"
    assert "prompt format" in experiment.reason


def test_an_experiment_that_breaks_does_not_stop_the_others(bot: Bot) -> None:
    broken = bot.start()
    Experiment.objects.filter(pk=broken.pk).update(plan={"nonsense": 1})
    assert rules.run_all() == 0


def test_looks_are_thinned_out(bot: Bot) -> None:
    experiment = bot.in_ab()
    begin = timezone.now()
    for minute in range(40):
        rules.run(experiment, now=begin + timedelta(minutes=minute))
    kept = list(ExperimentLook.objects.order_by("at").values_list("at", flat=True))
    assert 3 <= len(kept) <= 5
    assert kept[-1] == begin + timedelta(minutes=39)


def test_a_person_who_was_faster_wins(bot: Bot) -> None:
    experiment = bot.in_ab()
    stale = Experiment.objects.select_related("assistant", "candidate").get(pk=experiment.pk)
    step(experiment=experiment, actor=bot.ada)
    with pytest.raises(PromotionRefused, match="ended already"):
        step(experiment=stale, actor=None)

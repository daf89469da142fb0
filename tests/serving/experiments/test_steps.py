"""Steps by hand: order, gate, refusals, audit trail, and the way back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from assistants.models import AuditEvent
from serving.experiments.models import Experiment
from serving.experiments.plan import Plan, PlanError, read_plan
from serving.experiments.services import set_share, start, step, take_back
from serving.models import Deployment, Promotion
from serving.services import PromotionRefused, promote, roll_back
from tests.factories import make_adapter, make_assistant, make_evaluation, make_turn
from tests.serving.experiments.conftest import Bot


def deployment(bot: Bot) -> Deployment:
    return Deployment.objects.get(assistant=bot.assistant)


def test_from_shadow_to_live_with_every_step_on_record(bot: Bot) -> None:
    experiment = bot.start(canary_share=0.1)
    assert (experiment.stage, experiment.share, deployment(bot).experiment) == ("shadow", 0.0, experiment)
    for stage, share in (("canary", 0.1), ("ab", 0.5)):
        seen, experiment = experiment, step(experiment=experiment, actor=bot.ada, reason=f"to {stage}")
        assert (experiment.stage, experiment.share) == (stage, share)
        with pytest.raises(PromotionRefused, match="has gone on meanwhile"):  # the button pressed twice
            step(experiment=seen, actor=bot.ada)
    ended = step(experiment=experiment, actor=bot.ada, reason="it is better")
    assert (ended.stage, ended.ending, ended.share) == ("ended", "promoted", 0.0)
    live = deployment(bot)
    assert (live.adapter, live.previous, live.experiment) == (bot.candidate, bot.live, None)
    trail = list(Promotion.objects.filter(experiment=experiment).order_by("pk"))
    assert [(one.action, one.share) for one in trail] == [
        ("shadow", 0.0), ("canary", 0.1), ("ab", 0.5), ("promote", None),
    ]  # fmt: skip
    assert {one.actor for one in trail} == {bot.ada}
    assert {one.evaluation for one in trail} == {bot.candidate.evaluations.get()}
    assert [one.reason for one in trail] == ["It answers more.", "to canary", "to ab", "it is better"]
    actions = AuditEvent.objects.filter(action__startswith="experiment.").order_by("pk")
    assert [event.action for event in actions] == ["experiment.shadow", "experiment.canary", "experiment.ab"]


def test_users_meet_only_what_passed_the_gate_or_what_somebody_answers_for(bot: Bot) -> None:
    unproven = make_adapter(bot.assistant, number=3)
    evaluation = make_evaluation(unproven, verdict="not_proven")
    experiment = start(
        assistant=bot.assistant, adapter=unproven, plan=Plan(), evaluation=evaluation, actor=bot.ada
    )  # fmt: skip
    with pytest.raises(PromotionRefused, match="not passed the gate"):
        step(experiment=experiment, actor=bot.ada)
    with pytest.raises(PromotionRefused, match="needs a reason"):
        step(experiment=experiment, actor=bot.ada, override=True, reason=" ")
    experiment = step(experiment=experiment, actor=bot.ada, override=True, reason="the pilot wants it")
    assert experiment.override_reason == "the pilot wants it"
    for _ in range(2):
        experiment = step(experiment=experiment, actor=bot.ada)
    overridden = Promotion.objects.filter(experiment=experiment).order_by("pk").values_list("overrides_gate", flat=True)
    assert list(overridden) == [False, True, True, True]
    assert deployment(bot).adapter == unproven


def test_taking_back_needs_a_reason_and_ends_it_for_everybody(bot: Bot) -> None:
    experiment = bot.in_ab()
    with pytest.raises(PromotionRefused, match="Say why"):
        take_back(experiment=experiment, actor=bot.ada, reason=" ")
    ended = take_back(experiment=experiment, actor=bot.ada, reason="complaints")
    assert (ended.stage, ended.ending, ended.reason) == ("ended", "taken_back", "complaints")
    assert (deployment(bot).adapter, deployment(bot).experiment) == (bot.live, None)
    assert bot.choose(conversation="anybody") == (bot.live, None)
    for act in (step, take_back):
        with pytest.raises(PromotionRefused, match="ended already"):
            act(experiment=experiment, actor=bot.ada, reason="again")
    last = Promotion.objects.order_by("pk").last()
    assert last is not None
    assert (last.action, last.from_adapter, last.to_adapter) == ("take_back", bot.candidate, bot.live)


def test_one_candidate_at_a_time(bot: Bot) -> None:
    bot.start()
    third = make_adapter(bot.assistant, number=3)
    passed = make_evaluation(third, verdict="passed")
    with pytest.raises(PromotionRefused, match="One candidate at a time"):
        start(assistant=bot.assistant, adapter=third, plan=Plan(), evaluation=passed, actor=bot.ada)
    with pytest.raises(PromotionRefused, match="Take its candidate back first"):
        promote(assistant=bot.assistant, adapter=third, evaluation=passed, actor=bot.ada)


def test_promoting_the_candidate_by_hand_ends_its_experiment(bot: Bot) -> None:
    experiment = bot.start()
    promote(
        assistant=bot.assistant, adapter=bot.candidate, evaluation=bot.candidate.evaluations.first(), actor=bot.ada
    )  # fmt: skip
    experiment.refresh_from_db()
    assert (experiment.stage, experiment.ending) == ("ended", "promoted")


def test_rolling_back_what_is_live_ends_what_was_compared_with_it(bot: Bot) -> None:
    experiment = bot.in_ab()
    roll_back(assistant=bot.assistant, actor=bot.ada, reason="the live one is broken")
    experiment.refresh_from_db()
    assert (experiment.stage, experiment.ending) == ("ended", "taken_back")
    assert (deployment(bot).adapter, deployment(bot).experiment) == (None, None)


def test_what_does_not_fit_is_refused(bot: Bot) -> None:
    foreign = make_adapter(bot.assistant, number=3, prompt_digest="f" * 16)
    stranger = make_adapter(make_assistant())
    for adapter, sentence in (
        (bot.live, "live already"), (foreign, "Train a new adapter"), (stranger, "another assistant"),
    ):  # fmt: skip
        with pytest.raises(PromotionRefused, match=sentence):
            start(assistant=bot.assistant, adapter=adapter, plan=Plan(), evaluation=None, actor=bot.ada)
    assert not Experiment.objects.exists()


def test_shares_have_bounds_and_need_a_reason(bot: Bot) -> None:
    experiment = bot.start()
    with pytest.raises(PromotionRefused, match="no share"):
        set_share(experiment=experiment, share=0.2, actor=bot.ada, reason="more")
    experiment = step(experiment=experiment, actor=bot.ada)
    with pytest.raises(PromotionRefused, match="is from"):
        set_share(experiment=experiment, share=0.9, actor=bot.ada, reason="more")
    with pytest.raises(PromotionRefused, match="Say why"):
        set_share(experiment=experiment, share=0.2, actor=bot.ada, reason="")


@pytest.mark.parametrize(
    "wrong",
    [
        {"unit": "message"}, {"canary_share": 0.9}, {"ab_share": 0.05}, {"days": 0}, {"guardrails": {}},
        {"guardrails": {"unsupported": 0.1}}, {"guardrails": {"declined": "x"}}, {"nonsense": 1}, {"margin": True},
    ],
)  # fmt: skip
def test_plans_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        read_plan(wrong)
    assert read_plan(Plan(days=3).plain()) == Plan(days=3)


def test_what_counts_as_slow_is_measured_before_the_start(bot: Bot) -> None:
    now = timezone.now()
    name = bot.live.engine_name
    for i in range(60):
        make_turn(
            bot.assistant, contexts=(), tags=["chat"], adapter=name, latency_ms=100 + i,
            asked_at=now - timedelta(hours=1, seconds=i),
        )  # fmt: skip
    assert bot.start().latency_limit_ms == 156

"""Steps by hand: order, gate, refusals, audit trail, and the way back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.models import AuditEvent
from serving.experiments.models import Experiment
from serving.experiments.plan import Plan, PlanError, read_plan
from serving.experiments.services import set_share, start, step, take_back
from serving.models import Deployment, Promotion
from serving.services import PromotionRefused, promote, roll_back
from tests.factories import make_adapter, make_assistant, make_evaluation, make_turn
from tests.serving.experiments.conftest import Bot
from training.evaluation.declaring import declare_gate
from training.evaluation.gate import GateRule


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


def test_a_gate_that_went_stale_on_the_way_is_overridden_with_a_reason_or_met_anew(bot: Bot) -> None:
    """The last step once had no way over it, though promoting by hand had."""
    experiment = bot.start()
    for _ in range(2):
        experiment = step(experiment=experiment, actor=bot.ada)
    declare_gate(assistant=bot.assistant, rule=GateRule(margins={}), reason="Stricter", actor=bot.ada, read_version=0)
    with pytest.raises(PromotionRefused, match="declared anew since"):
        step(experiment=experiment, actor=bot.ada)
    with pytest.raises(PromotionRefused, match="declared anew since"):  # a rule overrides nothing
        step(experiment=experiment, actor=None, reason="better")
    with pytest.raises(PromotionRefused, match="needs a reason"):
        step(experiment=experiment, actor=bot.ada, override=True)
    ended = step(experiment=experiment, actor=bot.ada, override=True, reason="the board wants it")
    assert ended.ending == "promoted"
    last = Promotion.objects.get(experiment=experiment, action="promote")
    assert (last.overrides_gate, last.reason) == (True, "the board wants it")


def test_what_passed_in_another_number_format_is_not_stepped_without_a_reason(bot: Bot, settings: Any) -> None:
    experiment = bot.start()
    for _ in range(2):
        experiment = step(experiment=experiment, actor=bot.ada)
    settings.RATCHET_ENGINE_DTYPE = "bfloat16"
    with pytest.raises(PromotionRefused, match=r"RATCHET_ENGINE_DTYPE=float32, .* bfloat16 now"):
        step(experiment=experiment, actor=bot.ada)
    ended = step(experiment=experiment, actor=bot.ada, override=True, reason="the new engine says the same")
    assert ended.ending == "promoted"


def test_the_page_asks_for_the_reason_where_the_gate_went_stale(bot: Bot) -> None:
    experiment = bot.start()
    for _ in range(2):
        experiment = step(experiment=experiment, actor=bot.ada)
    client = Client()
    client.force_login(bot.ada)
    url = reverse("admin:serving_experiment_change", args=[experiment.pk])
    assert 'name="override"' not in client.get(url).content.decode()
    bot.assistant.evidence_threshold = 0.4
    bot.assistant.save(update_fields=["evidence_threshold"])
    page = client.get(url).content.decode()
    assert "The threshold for declining was 0 when" in page
    assert 'name="override"' in page
    sent = {"stage": "ab", "override": "1", "reason": "the board wants it"}
    client.post(reverse("dashboards:experiment-act", args=[experiment.pk, "step"]), sent)
    experiment.refresh_from_db()
    assert experiment.ending == "promoted"

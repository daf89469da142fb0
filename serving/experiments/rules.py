"""What happens by itself each minute: outcomes are filled in, guardrails act, and steps are taken where that is wished.

A guardrail takes the candidate back whoever takes the steps; going on by rule needs that the plan says so.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.utils import timezone

from serving.experiments.looking import keep, look
from serving.experiments.measuring import measure
from serving.experiments.models import Experiment
from serving.experiments.plan import OUTCOMES
from serving.experiments.services import step, take_back
from serving.services import PromotionRefused
from training.models import GateVerdict

logger = logging.getLogger(__name__)
SHADOW_FAILURES = 0.1


def run_all(now: datetime | None = None) -> int:
    """Of every running experiment; how many. One that breaks does not keep the guardrails of others from acting."""
    running = Experiment.objects.running().select_related(
        "assistant", "candidate__assistant", "control__assistant", "evaluation"
    )
    done = 0
    for experiment in running.order_by("pk"):
        try:
            run(experiment, now=now)
            done += 1
        except PromotionRefused as refused:  # a person was faster
            logger.info("%s: %s", experiment, refused)
        except Exception:
            logger.exception("The minute's pass over experiment %s failed.", experiment.pk)
    return done


def run(experiment: Experiment, *, now: datetime | None = None) -> dict[str, Any]:
    """One pass; the look that it was decided by.

    Raises:
        PromotionRefused: it was ended meanwhile.
    """
    now = now or timezone.now()
    if why := _unfit(experiment):
        take_back(experiment=experiment, actor=None, reason=why, ending=Experiment.Ending.STOPPED, now=now)
        return {}
    measure(experiment, now=now)
    result = look(experiment, now=now)
    keep(experiment, result, now=now)
    tripped = [one for one in result.get("guardrails", ()) if one["tripped"]]
    if tripped:
        take_back(
            experiment=experiment, actor=None, reason=_why(tripped), ending=Experiment.Ending.GUARDRAIL, now=now
        )  # fmt: skip
        return result
    try:
        notice = _go_on(experiment, result, now)
    except PromotionRefused as refused:  # by the gate, say, since the threshold is another one now
        notice = str(refused)
    if notice != experiment.notice:
        Experiment.objects.filter(pk=experiment.pk).running().update(notice=notice[:300])
    return result


def _unfit(experiment: Experiment) -> str:
    if experiment.candidate.prompt_digest != experiment.assistant.prompt_digest:
        return "The assistant's prompt format was changed; the candidate was trained with another one."
    return ""


def _why(tripped: list[dict[str, Any]]) -> str:
    """A sentence that somebody understands who reads it next month."""
    parts = [
        f"“{OUTCOMES[one['name']].label}” {one['candidate']:.1%} instead of {one['control']:.1%}: at least "
        f"{one['low'] * 100:.1f} points more, where {one['tolerance'] * 100:g} are tolerated "
        f"({one['n'][1]} and {one['n'][0]} units)"
        for one in tripped
    ]
    return f"Guardrail: {'; '.join(parts)}."


def _go_on(experiment: Experiment, result: dict[str, Any], now: datetime) -> str:
    """Takes the next step where the plan allows it; else why it waits (empty: for nothing but time or people)."""
    plan = experiment.rules
    if result.get("share_alarm"):
        return "The arms do not get their shares, so nothing goes on by itself: find out why first."
    if not plan.by_rule:
        return ""
    if experiment.stage == Experiment.Stage.SHADOW:
        return _from_shadow(experiment, result["shadow"], now)
    if experiment.stage == Experiment.Stage.CANARY:
        if result["units"]["candidate"] < plan.canary_units or _unknown(result):
            return ""
        step(experiment=experiment, actor=None, reason=_canary_words(result), now=now)
        return ""
    wins = ("better",) if plan.goal == "better" else ("better", "not_worse")
    if result["verdict"] in wins:
        step(experiment=experiment, actor=None, reason=result["sentence"], now=now)
    elif result["verdict"] == "worse":
        take_back(
            experiment=experiment, actor=None, reason=result["sentence"], ending=Experiment.Ending.GUARDRAIL, now=now
        )  # fmt: skip
    elif result["days_left"] <= 0:
        reason = f"{plan.days} days without a verdict. {result['sentence']}"
        take_back(experiment=experiment, actor=None, reason=reason, ending=Experiment.Ending.STOPPED, now=now)
    return ""


def _unknown(result: dict[str, Any]) -> bool:
    """Whether the guardrail on unanswered questions has not seen enough units yet."""
    return any(one["low"] is None for one in result["guardrails"] if one["name"] in ("failed", "trouble"))


def _canary_words(result: dict[str, Any]) -> str:
    units = result["units"]
    return f"No guardrail tripped with {units['candidate']} units of the candidate and {units['control']} beside them."


def _from_shadow(experiment: Experiment, shadow: dict[str, Any], now: datetime) -> str:
    plan = experiment.rules
    compared, failed = shadow["compared"], shadow["failed"]
    if compared < plan.shadow_pairs:
        return ""
    if failed > SHADOW_FAILURES * (compared + failed):
        return f"The candidate gave no answer to {failed} of {compared + failed} questions; look at the errors."
    more = (shadow["other_declined"] - shadow["shown_declined"]) / max(compared, 1)
    tolerance = plan.guardrails.get("declined")
    if tolerance is not None and more > tolerance:
        return (
            f"In shadow the candidate declines {more * 100:.1f} points more than what is live; "
            f"{tolerance * 100:g} are tolerated. A person may take the step."
        )
    evaluation = experiment.evaluation
    if evaluation is None or evaluation.verdict != GateVerdict.PASSED:
        return "The gate is not passed, so only a person may take it to users, with a reason."
    step(
        experiment=experiment, actor=None, now=now,
        reason=f"{compared} questions compared in shadow, {failed} without an answer.",
    )  # fmt: skip
    return ""

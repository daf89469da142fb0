"""The steps of a candidate: shadow, canary, A/B, live; and back, at any time, in one.

Every step locks the deployment, so that people and rules never step over each other, and leaves a `Promotion` (who,
why, which evaluation, which share) and an audit event in its own transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.utils import timezone

from assistants.models import Assistant
from assistants.prose import masked_prose
from assistants.services import audit
from serving.experiments.ending import end_running
from serving.experiments.models import Experiment
from serving.experiments.plan import Plan
from serving.models import Deployment, Promotion
from serving.services import PromotionRefused, check_fits, check_gate, locked_deployment, promote
from serving.warming import warm_soon
from training.models import Adapter, Evaluation

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_REASON = 2000
LOOK_BACK = timedelta(days=14)
NEXT = {
    Experiment.Stage.SHADOW: Experiment.Stage.CANARY,
    Experiment.Stage.CANARY: Experiment.Stage.AB,
}


@transaction.atomic
def start(
    *,
    assistant: Assistant,
    adapter: Adapter,
    plan: Plan,
    evaluation: Evaluation | None,
    actor: User | None,
    reason: str = "",
    now: datetime | None = None,
) -> Experiment:
    """Begins in shadow: nobody is shown anything of it yet.

    Raises:
        PromotionRefused: another experiment runs, the adapter is live, or does not fit (see `check_fits`).
    """
    now = now or timezone.now()
    reason = masked_prose(reason[:MAX_REASON], assistant=assistant, typed_by=actor)
    check_fits(assistant=assistant, adapter=adapter, evaluation=evaluation)
    deployment = locked_deployment(assistant)
    if deployment.experiment is not None:
        raise PromotionRefused(f"{deployment.experiment} runs. One candidate at a time: take it back first.")
    if deployment.adapter_id == adapter.pk:
        raise PromotionRefused(f"{adapter} is live already.")
    experiment = Experiment.objects.create(
        assistant=assistant,
        candidate=adapter,
        control=deployment.adapter,
        evaluation=evaluation,
        plan=plan.plain(),
        latency_limit_ms=_usual_latency(deployment, now),
        started_at=now,
        stage_since=now,
        created_by=actor,
    )
    deployment.experiment = experiment
    deployment.save(update_fields=["experiment", "changed_at"])
    _noted(experiment, Promotion.Action.SHADOW, actor=actor, reason=reason)
    return experiment


@transaction.atomic
def step(
    *, experiment: Experiment, actor: User | None, reason: str = "", override: bool = False, now: datetime | None = None
) -> Experiment:
    """One step on from where ``experiment`` was read. Into the canary, where users meet it, and live only with a passed
    gate, or over it with a reason: it may have been declared anew, or another threshold may serve, since the canary.

    Raises:
        PromotionRefused: it has ended or gone on meanwhile (a button pressed twice, a rule that was faster), the gate
            is not passed, or the assistant's prompt format is another one now.
    """
    reason = masked_prose(reason[:MAX_REASON], assistant=experiment.assistant, typed_by=actor)
    current = _as_seen(experiment)
    check_fits(assistant=current.assistant, adapter=current.candidate, evaluation=current.evaluation)
    if current.stage == Experiment.Stage.AB:
        promote(
            assistant=current.assistant, adapter=current.candidate, evaluation=current.evaluation, actor=actor,
            override=override or bool(current.override_reason), reason=reason or current.override_reason,
        )  # fmt: skip
        current.refresh_from_db()
        return current
    if current.stage == Experiment.Stage.SHADOW and not check_gate(
        adapter=current.candidate, evaluation=current.evaluation, override=override, reason=reason
    ):
        current.override_reason = reason
    current.stage = NEXT[Experiment.Stage(current.stage)].value
    plan = current.rules
    share = plan.canary_share if current.stage == Experiment.Stage.CANARY else plan.ab_share
    _under_new_share(current, max(share, current.share), now)
    _noted(current, Promotion.Action(current.stage), actor=actor, reason=reason)
    return current


@transaction.atomic
def set_share(
    *, experiment: Experiment, share: float, actor: User | None, reason: str, now: datetime | None = None
) -> Experiment:
    """Another share for the candidate within the stage. Counting begins anew.

    Raises:
        PromotionRefused: nobody meets it yet, the share is none, or no reason was given.
    """
    reason = masked_prose(reason[:MAX_REASON], assistant=experiment.assistant, typed_by=actor)
    current = _as_seen(experiment)
    if not current.shows_candidate:
        raise PromotionRefused("Users do not meet the candidate yet, so it has no share.")
    low, high = (0.005, 0.5) if current.stage == Experiment.Stage.CANARY else (0.2, 0.8)
    if not low <= share <= high:
        raise PromotionRefused(f"In this stage the share is from {low:.1%} to {high:.0%}.")
    if not reason:
        raise PromotionRefused("Say why; counting begins anew with another share.")
    _under_new_share(current, share, now)
    _noted(current, Promotion.Action(current.stage), actor=actor, reason=reason)
    return current


@transaction.atomic
def take_back(
    *,
    experiment: Experiment,
    actor: User | None,
    reason: str,
    ending: Experiment.Ending = Experiment.Ending.TAKEN_BACK,
    now: datetime | None = None,
) -> Experiment:
    """From the next question on, what is live answers everybody again.

    Raises:
        PromotionRefused: it has ended already, or no reason was given.
    """
    if not reason.strip():
        raise PromotionRefused("Say why it is taken back; the next person will want to know.")
    reason = masked_prose(reason[:MAX_REASON], assistant=experiment.assistant, typed_by=actor)
    deployment = _running(experiment)
    ended = end_running(deployment, ending=ending, reason=reason, now=now)
    assert ended is not None
    deployment.save(update_fields=["experiment", "changed_at"])
    _noted(ended, Promotion.Action.TAKE_BACK, actor=actor, reason=ended.reason)
    return ended


def _running(experiment: Experiment) -> Deployment:
    """The locked deployment in which it runs.

    Raises:
        PromotionRefused: it has ended, by somebody else or by a rule.
    """
    deployment = locked_deployment(experiment.assistant)
    if deployment.experiment_id != experiment.pk:
        raise PromotionRefused(f"{experiment} has ended already; reload the page to see how.")
    current = Experiment.objects.select_related("assistant", "candidate", "control", "evaluation")
    deployment.experiment = current.get(pk=experiment.pk)
    return deployment


def _as_seen(experiment: Experiment) -> Experiment:
    """The row as it is now, locked, if it still is where the caller has read it.

    Raises:
        PromotionRefused: it is not; what was decided was decided about something else.
    """
    current = _running(experiment).experiment
    assert current is not None
    if (current.stage, current.epoch) != (experiment.stage, experiment.epoch):
        raise PromotionRefused(
            f"{experiment} has gone on meanwhile and is at “{current.get_stage_display()}” now; look at it again."
        )
    return current


def _under_new_share(experiment: Experiment, share: float, now: datetime | None) -> None:
    experiment.share, experiment.epoch = share, experiment.epoch + 1
    experiment.stage_since, experiment.notice = now or timezone.now(), ""
    experiment.save(update_fields=["stage", "share", "epoch", "stage_since", "notice", "override_reason"])


def _noted(experiment: Experiment, action: Promotion.Action, *, actor: User | None, reason: str) -> None:
    back = action == Promotion.Action.TAKE_BACK
    Promotion.objects.create(
        assistant=experiment.assistant,
        action=action,
        from_adapter=experiment.candidate if back else experiment.control,
        to_adapter=experiment.control if back else experiment.candidate,
        evaluation=experiment.evaluation,
        experiment=experiment,
        share=experiment.share,
        overrides_gate=bool(experiment.override_reason) and not back,
        reason=reason,
        actor=actor,
    )
    audit(
        assistant=experiment.assistant, actor=actor, action=f"experiment.{action.value}",
        target=str(experiment)[:200], reason=reason,
        details={"share": experiment.share, "ending": experiment.ending},
    )  # fmt: skip
    warm_soon(experiment.assistant)


def _usual_latency(deployment: Deployment, now: datetime) -> int | None:
    """Milliseconds within which 19 of 20 of the last 2,000 answers of what is live came; None: too few to say."""
    name = deployment.adapter.engine_name if deployment.adapter else ""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) FROM (
                SELECT latency_ms FROM capture_turn
                WHERE assistant_id = %s AND adapter = %s AND asked_at > %s AND asked_at <= %s
                  AND latency_ms IS NOT NULL AND tags @> '{chat}'
                ORDER BY asked_at DESC LIMIT 2000
            ) AS newest
            """,
            [deployment.assistant_id, name, now - LOOK_BACK, now],
        )
        count, limit = cursor.fetchone()
    return int(limit) if count >= 50 else None

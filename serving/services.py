"""Writes of the serving room: what goes live, what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction

from assistants.models import Assistant
from assistants.prose import masked_prose
from assistants.services import audit
from serving.experiments.ending import end_running
from serving.experiments.models import Experiment
from serving.models import Deployment, Promotion
from serving.warming import warm_soon
from training.evaluation.declaring import declaration_of
from training.models import Adapter, Evaluation, GateVerdict

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class PromotionRefused(ValueError):
    """The adapter may not go live; the message says why and what would help."""


def deployment_of(assistant: Assistant) -> Deployment:
    return Deployment.objects.get_or_create(assistant=assistant)[0]


@transaction.atomic
def promote(
    *,
    assistant: Assistant,
    adapter: Adapter,
    evaluation: Evaluation | None,
    actor: User | None,
    reason: str = "",
    override: bool = False,
) -> Promotion:
    """Puts an adapter in front of users. What was live stays as the previous one, for one-step rollback.

    An experiment with this adapter ends with it.

    Args:
        evaluation: the before/after that speaks for it.
        override: promote without a passed gate; needs a reason and is audited as such.

    Raises:
        PromotionRefused: another assistant's adapter, another prompt format, an evaluation of another adapter, gate not
            passed and not overridden, an override without a reason, an experiment with another adapter runs, or already
            live.
    """
    check_fits(assistant=assistant, adapter=adapter, evaluation=evaluation)
    passed = check_gate(adapter=adapter, evaluation=evaluation, override=override, reason=reason)
    reason = masked_prose(reason, assistant=assistant, typed_by=actor)
    deployment = locked_deployment(assistant)
    if deployment.adapter_id == adapter.pk:
        raise PromotionRefused(f"{adapter} is live already.")
    running = deployment.experiment
    if running is not None and running.candidate_id != adapter.pk:
        raise PromotionRefused(f"{running} runs. Take its candidate back first.")
    end_running(deployment, ending=Experiment.Ending.PROMOTED, reason=reason)
    return _switch(
        deployment, Promotion.Action.PROMOTE, adapter, evaluation=evaluation, actor=actor, reason=reason,
        overrides=not passed, experiment=running,
    )  # fmt: skip


def check_fits(*, assistant: Assistant, adapter: Adapter, evaluation: Evaluation | None) -> None:
    """Raises:
    PromotionRefused: another assistant's adapter, another prompt format, rows that were erased since, or an evaluation
        of another adapter.
    """
    if adapter.assistant_id != assistant.pk:
        raise PromotionRefused(f"{adapter} belongs to another assistant.")
    if adapter.prompt_digest != assistant.prompt_digest:
        raise PromotionRefused(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}, the assistant now uses "
            f"{assistant.prompt_digest}. Train a new adapter."
        )
    if adapter.erased_rows:
        raise PromotionRefused(f"{adapter} has learned from rows that were erased since. Train another one.")
    if evaluation is not None and evaluation.adapter_id != adapter.pk:
        raise PromotionRefused(f"{evaluation} says nothing about {adapter}.")


def check_gate(*, adapter: Adapter, evaluation: Evaluation | None, override: bool, reason: str) -> bool:
    """Whether the gate was passed, where that is what lets the adapter meet users; False for an override.

    Raises:
        PromotionRefused: neither passed nor overridden, or overridden without a reason.
    """
    why = gate_problem(adapter=adapter, evaluation=evaluation)
    if why and not override:
        raise PromotionRefused(why)
    if why and not reason.strip():
        raise PromotionRefused("An override needs a reason.")
    return not why


def gate_problem(*, adapter: Adapter, evaluation: Evaluation | None) -> str:
    """Why the gate does not let the adapter meet users as things stand now, in a sentence; empty where it does. One
    query at most."""
    if evaluation is None or evaluation.verdict != GateVerdict.PASSED:
        return f"{adapter} has not passed the gate. Evaluate it, or override with a reason."
    declared = declaration_of(adapter.assistant)
    if declared is not None and evaluation.gate_version != declared.version:
        # Whoever declares a stricter gate means what comes next, this promotion too.
        return (
            f"The gate was declared anew since (version {declared.version}). Evaluate {adapter} again, or override "
            "with a reason."
        )
    if evaluation.threshold != adapter.assistant.evidence_threshold:
        # What was measured is not what users would get: another threshold asks the model other questions.
        return (
            f"The threshold for declining was {evaluation.threshold:g} when {adapter} was evaluated, and is "
            f"{adapter.assistant.evidence_threshold:g} now. Evaluate it again, or override with a reason."
        )
    if evaluation.dtype != settings.RATCHET_ENGINE_DTYPE:
        return (
            f"{adapter} was evaluated with RATCHET_ENGINE_DTYPE={evaluation.dtype}, and the engine computes in "
            f"{settings.RATCHET_ENGINE_DTYPE} now. Evaluate it again, or override with a reason."
        )
    return ""


@transaction.atomic
def roll_back(*, assistant: Assistant, actor: User | None, reason: str, seen: str | None = None) -> Promotion:
    """One step back: what was live before is live again (rolling back twice returns). A running experiment ends with
    it: what it compared with is gone. Where what was live before may not meet users any more, the base model does.

    Args:
        seen: key of the adapter that was live when it was asked for, empty for the base model; None: whatever is live.

    Raises:
        PromotionRefused: there is nothing to roll back to, no reason was given, or something else is live by now.
    """
    if not reason.strip():
        raise PromotionRefused("Say why it is rolled back; the next person will want to know.")
    reason = masked_prose(reason, assistant=assistant, typed_by=actor)
    deployment = locked_deployment(assistant)
    if seen is not None and seen != str(deployment.adapter_id or ""):
        # Two people who take back the same adapter would put it back.
        raise PromotionRefused(f"{deployment.adapter or 'The base model'} is live by now; nothing was changed.")
    if not deployment.has_previous:
        raise PromotionRefused("Nothing was live before; there is nothing to roll back to.")
    target = deployment.previous
    if target is not None and (unfit := _unfit(target, assistant)):
        if deployment.adapter is None:
            raise PromotionRefused(unfit)
        target, reason = None, f"{reason} ({unfit})"
    ended = end_running(deployment, ending=Experiment.Ending.TAKEN_BACK, reason=reason)
    return _switch(
        deployment, Promotion.Action.ROLL_BACK, target, evaluation=None, actor=actor,
        reason=reason, overrides=False, experiment=ended,
    )  # fmt: skip


def _unfit(adapter: Adapter, assistant: Assistant) -> str:
    try:
        check_fits(assistant=assistant, adapter=adapter, evaluation=None)
    except PromotionRefused as refused:
        return str(refused)
    return ""


def locked_deployment(assistant: Assistant) -> Deployment:
    """The row on which every step is taken one after the other. Call it inside a transaction."""
    deployment_of(assistant)
    # Two admins pressing at once: the second one sees what the first one did. Read by a statement of its own: whoever
    # has waited for the lock gets the row anew, but what is joined to it as it was before, or nothing at all.
    locked = Deployment.objects.select_for_update().get(assistant=assistant)
    return Deployment.objects.select_related("adapter", "previous", "experiment__candidate").get(pk=locked.pk)


def _switch(
    deployment: Deployment,
    action: Promotion.Action,
    adapter: Adapter | None,
    *,
    evaluation: Evaluation | None,
    actor: User | None,
    reason: str,
    overrides: bool,
    experiment: Experiment | None,
) -> Promotion:
    before = deployment.adapter
    deployment.adapter, deployment.previous, deployment.has_previous = adapter, before, True
    deployment.save()
    promotion = Promotion.objects.create(
        assistant=deployment.assistant, action=action, from_adapter=before, to_adapter=adapter,
        evaluation=evaluation, overrides_gate=overrides, reason=reason, actor=actor, experiment=experiment,
    )  # fmt: skip
    audit(
        assistant=deployment.assistant,
        actor=actor,
        action=f"adapter.{action.value}",
        target=str(adapter or "base model"),
        reason=reason,
        details={"from": str(before or "base model"), "overrides_gate": overrides},
    )
    warm_soon(deployment.assistant)
    return promotion

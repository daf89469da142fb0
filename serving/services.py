"""Writes of the serving room: what goes live, what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

from assistants.models import Assistant
from assistants.services import audit
from serving.models import Deployment, Promotion
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

    Args:
        evaluation: the before/after that speaks for it.
        override: promote without a passed gate; needs a reason and is audited as such.

    Raises:
        PromotionRefused: another assistant's adapter, another prompt format, an evaluation of another adapter, gate not
            passed and not overridden, an override without a reason, or already live.
    """
    if adapter.assistant_id != assistant.pk:
        raise PromotionRefused(f"{adapter} belongs to another assistant.")
    if adapter.prompt_digest != assistant.prompt_digest:
        raise PromotionRefused(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}, the assistant now uses "
            f"{assistant.prompt_digest}. Train a new adapter."
        )
    if evaluation is not None and evaluation.adapter_id != adapter.pk:
        raise PromotionRefused(f"{evaluation} says nothing about {adapter}.")
    passed = evaluation is not None and evaluation.verdict == GateVerdict.PASSED
    if not passed and not override:
        raise PromotionRefused(f"{adapter} has not passed the gate. Evaluate it, or override with a reason.")
    if not passed and not reason.strip():
        raise PromotionRefused("An override needs a reason.")
    deployment = _locked(assistant)
    if deployment.adapter_id == adapter.pk:
        raise PromotionRefused(f"{adapter} is live already.")
    return _switch(
        deployment, Promotion.Action.PROMOTE, adapter, evaluation=evaluation, actor=actor, reason=reason.strip(),
        overrides=not passed,
    )  # fmt: skip


@transaction.atomic
def roll_back(*, assistant: Assistant, actor: User | None, reason: str) -> Promotion:
    """One step back: what was live before is live again (rolling back twice returns).

    Raises:
        PromotionRefused: there is nothing to roll back to, or no reason was given.
    """
    if not reason.strip():
        raise PromotionRefused("Say why it is rolled back; the next person will want to know.")
    deployment = _locked(assistant)
    if not deployment.has_previous:
        raise PromotionRefused("Nothing was live before; there is nothing to roll back to.")
    return _switch(
        deployment, Promotion.Action.ROLL_BACK, deployment.previous, evaluation=None, actor=actor,
        reason=reason.strip(), overrides=False,
    )  # fmt: skip


def _locked(assistant: Assistant) -> Deployment:
    deployment_of(assistant)
    # Two admins pressing at once: the second one sees what the first one did.
    locked = Deployment.objects.select_for_update(of=("self",))
    return locked.select_related("adapter", "previous").get(assistant=assistant)


def _switch(
    deployment: Deployment,
    action: Promotion.Action,
    adapter: Adapter | None,
    *,
    evaluation: Evaluation | None,
    actor: User | None,
    reason: str,
    overrides: bool,
) -> Promotion:
    before = deployment.adapter
    deployment.adapter, deployment.previous, deployment.has_previous = adapter, before, True
    deployment.save()
    promotion = Promotion.objects.create(
        assistant=deployment.assistant, action=action, from_adapter=before, to_adapter=adapter,
        evaluation=evaluation, overrides_gate=overrides, reason=reason, actor=actor,
    )  # fmt: skip
    audit(
        assistant=deployment.assistant,
        actor=actor,
        action=f"adapter.{action.value}",
        target=str(adapter or "base model"),
        reason=reason,
        details={"from": str(before or "base model"), "overrides_gate": overrides},
    )
    return promotion

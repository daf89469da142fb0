"""Writes about rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from assistants.models import Assistant
from assistants.services import audit
from training.rules.firing import ensure_checking
from training.rules.models import RetrainingRule

FIELDS = ("enabled", "action", "min_labels", "min_documents", "every_days", "on_drift", "rest_days")


def rule_of(assistant: Assistant) -> RetrainingRule:
    """The stored rule, or the one that would be made: off."""
    return RetrainingRule.objects.filter(assistant=assistant).first() or RetrainingRule(assistant=assistant)


@transaction.atomic
def save_rule(*, assistant: Assistant, values: Mapping[str, Any], actor: User | None) -> RetrainingRule:
    """Writes the assistant's rule with what changed.

    Raises:
        django.core.exceptions.ValidationError: a value is not allowed.
    """
    Assistant.objects.select_for_update().get(pk=assistant.pk)  # two admins make the first rule one by one
    rule = rule_of(assistant)
    before = {name: getattr(rule, name) for name in FIELDS}
    for name in FIELDS:
        setattr(rule, name, values[name])
    rule.updated_by = actor
    rule.full_clean(exclude=["assistant", "updated_by"])
    rule.save()
    changed = {name: [before[name], values[name]] for name in FIELDS if before[name] != values[name]}
    audit(assistant=assistant, actor=actor, action="retraining.rule_changed", target=str(rule), details=changed)
    if rule.enabled:
        transaction.on_commit(ensure_checking)
    return rule

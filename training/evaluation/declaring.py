"""The gate of an assistant: declared before anything is measured, in versions, each with who and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from assistants.models import Assistant
from assistants.prose import masked_prose
from assistants.services import audit
from training.evaluation.gate import GateRule
from training.evaluation.models import GateDeclaration

MAX_REASON = 500


class GateConflict(ValueError):
    """Somebody declared another version since this one was read; the message says which."""


def declaration_of(assistant: Assistant) -> GateDeclaration | None:
    """The version that counts; None while the standard gate does."""
    return GateDeclaration.objects.filter(assistant=assistant).order_by("-version").first()


def rules_of(assistants: Sequence[Assistant]) -> list[tuple[Assistant, GateRule, int | None]]:
    """As `rule_of`, of several in one query."""
    newest = GateDeclaration.objects.filter(assistant__in=assistants).order_by("assistant_id", "-version")
    declared = {one.assistant_id: one for one in newest.distinct("assistant_id")}
    found: list[tuple[Assistant, GateRule, int | None]] = []
    for assistant in assistants:
        one = declared.get(assistant.pk)
        found.append((assistant, GateRule.from_dict(one.rule), one.version) if one else (assistant, GateRule(), None))
    return found


def rule_of(assistant: Assistant) -> tuple[GateRule, int | None]:
    """The rule that counts for the next evaluation, and its version (None: the standard gate). One query."""
    declared = declaration_of(assistant)
    return (GateRule.from_dict(declared.rule), declared.version) if declared else (GateRule(), None)


@transaction.atomic
def declare_gate(
    *, assistant: Assistant, rule: GateRule, reason: str, actor: User | None, read_version: int
) -> GateDeclaration:
    """The next version. Evaluations keep the rule that they were started with.

    Args:
        read_version: the version that was changed (0: the standard gate), so that two people do not undo each other.

    Raises:
        GateConflict: another version was declared meanwhile.
        GateRuleError: the rule cannot be meant.
        ValueError: there is no reason, or it is too long.
    """
    rule = GateRule.from_dict(rule.as_dict())
    reason = reason.strip()
    if not reason or len(reason) > MAX_REASON:
        raise ValueError(f"Say why the gate is changed, in at most {MAX_REASON} characters.")
    # A placeholder may be longer than what it stands for.
    reason = masked_prose(reason, assistant=assistant, typed_by=actor)[:MAX_REASON]
    Assistant.objects.select_for_update().get(pk=assistant.pk)  # versions are given one by one
    last = declaration_of(assistant)
    newest = last.version if last else 0
    if newest != read_version:
        raise GateConflict(f"Version {newest} was declared meanwhile. Look at it, then change that one.")
    declared = GateDeclaration.objects.create(
        assistant=assistant, version=newest + 1, rule=rule.as_dict(), reason=reason, created_by=actor
    )
    before = GateRule.from_dict(last.rule) if last else GateRule()
    audit(
        assistant=assistant, actor=actor, action="gate.declared", target=str(declared), reason=reason,
        details=changes(before, rule),
    )  # fmt: skip
    return declared


def changes(before: GateRule, after: GateRule) -> dict[str, Any]:
    """{field: "old → new"} of what differs; a criterion that one of them lacks shows as none."""
    old, new = _flat(before), _flat(after)
    names = [name for name in [*old, *(n for n in new if n not in old)] if old.get(name) != new.get(name)]
    return {name: f"{old.get(name, 'none')} → {new.get(name, 'none')}" for name in names}


def _flat(rule: GateRule) -> dict[str, Any]:
    values = rule.as_dict()
    margins = values.pop("margins")
    return values | {f"margin of {name}": margin for name, margin in margins.items()}

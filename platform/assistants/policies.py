"""Which privacy policy counts for an assistant, and the acts that make the next version of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from assistants.models import Assistant
from assistants.policy_model import MAX_REVIEW_DAYS, REVIEW_DAYS, DocumentMasking, PrivacyPolicy, Rendering
from assistants.prose import masked_prose
from assistants.services import audit
from privacy.policy import Policy

MAX_VALUES = 5_000
MAX_VALUE_CHARS = 200
MAX_REASON = 500
List = Literal["allow", "deny"]


class PolicyConflict(Exception):
    """Somebody saved another version since this one was read; the message says which."""


@dataclass(frozen=True)
class Rules:
    """What counts for one assistant now. ``number`` 0: nobody has changed the defaults yet."""

    number: int = 0
    policy: Policy = field(default_factory=Policy)
    review_days: int = REVIEW_DAYS
    rendering: str = Rendering.PLACEHOLDERS.value
    documents: str = DocumentMasking.TRUSTED.value


def newest(assistant: Assistant) -> PrivacyPolicy | None:
    """The version that counts; None while the defaults do."""
    return PrivacyPolicy.objects.filter(assistant=assistant).order_by("-number").first()


def rules_of(assistant: Assistant) -> Rules:
    """The newest version, or the defaults. One query."""
    return rules_in(newest(assistant))


def rules_in(row: PrivacyPolicy | None) -> Rules:
    """The rules of one version. Raises ValueError as `PrivacyPolicy.policy`."""
    if row is None:
        return Rules()
    return Rules(row.number, row.policy, row.review_days, row.rendering, row.documents)


def policy_of(assistant: Assistant) -> Policy:
    """What the scrubber applies to this assistant's texts now. One query."""
    return rules_of(assistant).policy


@transaction.atomic
def change_policy(
    *, assistant: Assistant, rules: Rules, actor: User | None, reason: str, restored_from: int | None = None
) -> PrivacyPolicy:
    """Makes the next version.

    Args:
        rules: ``number`` is the version that the change was made on.

    Raises:
        PolicyConflict: another version was saved meanwhile.
        django.core.exceptions.ValidationError: a list is too long, a value cannot be searched for, a setting is out of
            its limits, no reason was given, or nothing was changed.
    """
    Assistant.objects.select_for_update().get(pk=assistant.pk)  # numbers are given one by one
    before = rules_of(assistant)
    if before.number != rules.number:
        raise PolicyConflict(
            f"Version {before.number} was saved meanwhile. Look at it and make your change on top of it."
        )
    policy = replace(
        rules.policy,
        allow=_checked(rules.policy.allow, "never masked"),
        deny=_checked(rules.policy.deny, "always masked"),
    )
    rules = replace(rules, policy=policy)
    _check(rules, reason)
    reason = masked_prose(reason[:MAX_REASON], assistant=assistant, typed_by=actor)
    changed = differences(before, rules)
    if not changed:
        raise ValidationError("Nothing was changed: this is what counts already.")
    row = PrivacyPolicy.objects.create(
        assistant=assistant,
        number=before.number + 1,
        settings=policy.to_dict(),
        review_days=rules.review_days,
        rendering=rules.rendering,
        documents=rules.documents,
        digest=policy.digest(),
        restored_from=restored_from,
        reason=reason,
        created_by=actor,
        author=actor.get_username()[:150] if actor is not None else "system",
    )
    audit(
        assistant=assistant, actor=actor, action="privacy.policy_changed", target=f"version {row.number}",
        reason=row.reason, details={"changes": {d.name: d.counted for d in changed}, "digest": row.digest},
    )  # fmt: skip
    return row


@transaction.atomic
def restore_policy(*, version: PrivacyPolicy, actor: User | None, reason: str) -> PrivacyPolicy:
    """A new version with the content of an old one. Raises as `change_policy`."""
    now = rules_of(version.assistant).number
    rules = replace(rules_in(version), number=now)
    return change_policy(
        assistant=version.assistant, rules=rules, actor=actor, reason=reason, restored_from=version.number
    )


@transaction.atomic
def add_value(*, assistant: Assistant, name: List, value: str, actor: User | None, reason: str) -> PrivacyPolicy | None:
    """Puts one value on the allow or the deny list, and takes it off the other. None when it stood there already.

    Raises as `change_policy`.
    """
    Assistant.objects.select_for_update().get(pk=assistant.pk)
    rules = rules_of(assistant)
    value = " ".join(value.split())
    other: List = "deny" if name == "allow" else "allow"
    lists: dict[str, tuple[str, ...]] = {"allow": rules.policy.allow, "deny": rules.policy.deny}
    known = {entry.casefold() for entry in lists[name]}
    lists[other] = tuple(entry for entry in lists[other] if entry.casefold() != value.casefold())
    if value.casefold() not in known:
        lists[name] = (*lists[name], value)
    policy = replace(rules.policy, allow=lists["allow"], deny=lists["deny"])
    if policy == rules.policy:
        return None
    return change_policy(assistant=assistant, rules=replace(rules, policy=policy), actor=actor, reason=reason)


@dataclass(frozen=True)
class Difference:
    """One setting of two versions. Lists: what was ``added`` and ``removed``; else ``before`` and ``after``."""

    name: str
    before: Any = None
    after: Any = None
    added: Sequence[str] = ()
    removed: Sequence[str] = ()

    @property
    def counted(self) -> Any:
        """Without any value of a list: for the audit trail, which more people read than the policy."""
        if self.added or self.removed:
            if self.name in ("allow", "deny"):
                return {"added": len(self.added), "removed": len(self.removed)}
            return {"added": list(self.added), "removed": list(self.removed)}
        return [self.before, self.after]


def differences(older: Rules, newer: Rules) -> list[Difference]:
    """What differs, setting by setting, in the order of the edit page."""
    old, new = _plain(older), _plain(newer)
    found: list[Difference] = []
    for name, after in new.items():
        before = old[name]
        if before == after:
            continue
        if isinstance(after, list):
            added = sorted(set(after) - set(before))
            removed = sorted(set(before) - set(after))
            found.append(Difference(name, before=before, after=after, added=added, removed=removed))
        elif isinstance(after, Mapping):
            kinds = sorted({*before, *after})
            found += [
                Difference(f"{name} {kind}", before.get(kind), after.get(kind))
                for kind in kinds
                if before.get(kind) != after.get(kind)
            ]
        else:
            found.append(Difference(name, before, after))
    return found


def _plain(rules: Rules) -> dict[str, Any]:
    plain = rules.policy.to_dict()
    # What a map leaves out has the default: written out, so that a version says everything.
    plain["thresholds"] = {kind: rules.policy.threshold(kind) for kind in sorted(rules.policy.entity_types)}
    return {
        **plain, "review_days": rules.review_days, "rendering": rules.rendering, "documents": rules.documents,
    }  # fmt: skip


def _check(rules: Rules, reason: str) -> None:
    if not reason.strip():
        raise ValidationError("Say why: the next officer will ask.")
    if not 1 <= rules.review_days <= MAX_REVIEW_DAYS:
        raise ValidationError(f"Values wait for review between 1 and {MAX_REVIEW_DAYS} days.")
    if rules.rendering not in Rendering.values:
        raise ValidationError(f"Datasets write {' or '.join(Rendering.values)}.")
    if rules.documents not in DocumentMasking.values:
        raise ValidationError(f"For documents choose one of {', '.join(DocumentMasking.values)}.")
    both = {v.casefold() for v in rules.policy.allow} & {v.casefold() for v in rules.policy.deny}
    if both:
        raise ValidationError(f"{len(both)} value(s) stand on both lists. A value is either always masked or never.")


def _checked(values: Iterable[str], name: str) -> tuple[str, ...]:
    """Trimmed, each once. Raises ValidationError that counts values and quotes none."""
    from privacy.values import literal_key

    found: dict[str, str] = {}
    for line, value in enumerate(values, start=1):
        clean = " ".join(value.split())
        if not clean:
            continue
        if len(clean) > MAX_VALUE_CHARS:
            raise ValidationError(
                f"Value {line} of “{name}” has {len(clean)} characters; a value has at most {MAX_VALUE_CHARS}."
            )
        if not clean.isprintable():
            raise ValidationError(f"Value {line} of “{name}” holds a character that cannot be printed.")
        if not literal_key(clean):
            raise ValidationError(
                f"Value {line} of “{name}” is too short or too common to be searched for: at least one word of 3 "
                "letters that is not a function word, or 6 digits; at most 12 words."
            )
        found.setdefault(clean.casefold(), clean)
    if len(found) > MAX_VALUES:
        raise ValidationError(f"These are {len(found):,} values; a list holds at most {MAX_VALUES:,}.")
    return tuple(found.values())

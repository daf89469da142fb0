"""Writes of the assistants room; every act leaves its audit event in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from assistants.models import ApiKey, Assistant, AuditEvent, Membership, Role, Scope
from assistants.prose import masked_prose

PREFIX_LENGTH = 9
"""Of the secret, kept readable so that people tell keys apart: `rk_` and six of 43 random characters."""


def audit(
    *,
    assistant: Assistant | None,
    actor: User | None,
    action: str,
    target: str = "",
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Notes an act. Call it inside the transaction of the act itself. Without an actor it was the system.

    The reason is masked here as well, so that none that a caller forgot to mask is kept for ever.
    """
    return AuditEvent.objects.create(
        assistant=assistant,
        actor=actor,
        actor_name=actor.get_username()[:150] if actor is not None else "system",
        action=action[:64],
        target=target[:200],
        reason=masked_prose(reason, assistant=assistant, typed_by=actor),
        details=dict(details or {}),
    )


@transaction.atomic
def create_assistant(*, slug: str, name: str, created_by: User | None = None, **settings: Any) -> Assistant:
    """A new assistant; who creates it becomes its admin.

    Args:
        settings: other fields of `Assistant` (decline_sentence, retrieval_k, …).

    Raises:
        django.core.exceptions.ValidationError: a value is not allowed, or the slug is taken.
    """
    assistant = Assistant(slug=slug, name=name, **settings)
    assistant.full_clean()
    assistant.save()
    if created_by is not None:
        Membership.objects.create(assistant=assistant, user=created_by, role=Role.ADMIN)
    audit(assistant=assistant, actor=created_by, action="assistant.created", target=slug)
    return assistant


@transaction.atomic
def grant_role(*, assistant: Assistant, user: User, role: str, actor: User | None = None) -> Membership:
    """Gives a person a role; holding it already changes nothing."""
    if role not in Role.values:
        raise ValidationError(f"There is no role {role!r}; choose from {', '.join(Role.values)}.")
    membership, created = Membership.objects.get_or_create(assistant=assistant, user=user, role=role)
    if created:
        audit(assistant=assistant, actor=actor, action="role.granted", target=f"{user.get_username()}: {role}")
    return membership


@transaction.atomic
def withdraw_role(*, membership: Membership, actor: User | None = None) -> None:
    """Takes a role from a person."""
    target = f"{membership.user.get_username()}: {membership.role}"
    audit(assistant=membership.assistant, actor=actor, action="role.withdrawn", target=target)
    membership.delete()


@transaction.atomic
def issue_key(
    *,
    assistant: Assistant,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    created_by: User | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is returned here and never again.

    Raises:
        django.core.exceptions.ValidationError: no scope, an unknown scope, or an expiry in the past.
    """
    wanted = list(dict.fromkeys(scopes))
    if not wanted:
        raise ValidationError("A key needs at least one scope.")
    if unknown := [scope for scope in wanted if scope not in Scope.values]:
        raise ValidationError(f"Unknown scopes: {', '.join(unknown)}. Choose from {', '.join(Scope.values)}.")
    if expires_at is not None and expires_at <= timezone.now():
        raise ValidationError("The key would have expired already.")
    secret = ApiKey.generate_secret()
    key = ApiKey.objects.create(
        assistant=assistant,
        name=name,
        prefix=secret[:PREFIX_LENGTH],
        digest=ApiKey.digest_of(secret),
        scopes=wanted,
        created_by=created_by,
        expires_at=expires_at,
    )
    audit(assistant=assistant, actor=created_by, action="key.issued", target=str(key), details={"scopes": wanted})
    return key, secret


@transaction.atomic
def revoke_key(*, key: ApiKey, actor: User | None, reason: str = "") -> ApiKey:
    """Ends a key at once. Revoking it again changes nothing."""
    locked = ApiKey.objects.select_for_update().get(pk=key.pk)
    if locked.revoked_at is None:
        locked.revoked_at = timezone.now()
        locked.save(update_fields=["revoked_at"])
        audit(assistant=locked.assistant, actor=actor, action="key.revoked", target=str(locked), reason=reason)
    key.revoked_at = locked.revoked_at
    return locked

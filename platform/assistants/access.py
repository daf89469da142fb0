"""Who may do what on which assistant: one answer for pages, commands and services."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet

from assistants.models import Assistant, Membership, Role

ALL_ROLES: frozenset[str] = frozenset(Role.values)
_CACHE = "_roles_by_assistant"


def roles_by_assistant(user: Any) -> dict[int, set[str]]:
    """{assistant pk: roles} of one person, read once per request (kept on the user object of the request)."""
    if not getattr(user, "is_authenticated", False) or not user.is_active:
        return {}
    cached: dict[int, set[str]] | None = getattr(user, _CACHE, None)
    if cached is None:
        cached = {}
        for assistant_id, role in Membership.objects.filter(user=user).values_list("assistant_id", "role"):
            cached.setdefault(assistant_id, set()).add(role)
        setattr(user, _CACHE, cached)
    return cached


def roles_of(user: Any, assistant: Assistant) -> set[str]:
    """Roles of ``user`` on ``assistant``; a superuser has all of them, a stranger none."""
    if _is_superuser(user):
        return set(ALL_ROLES)
    return set(roles_by_assistant(user).get(assistant.pk, ()))


def has_role(user: Any, assistant: Assistant, *roles: str) -> bool:
    """Whether one of ``roles`` is held; without roles: whether the person belongs to the assistant at all."""
    held = roles_of(user, assistant)
    return bool(held & set(roles)) if roles else bool(held)


def require_role(user: Any, assistant: Assistant, *roles: str) -> None:
    """Raises:
    PermissionDenied: ``user`` holds none of ``roles`` on ``assistant``.
    """
    if not has_role(user, assistant, *roles):
        raise PermissionDenied(f"This needs one of these roles on {assistant.name}: {', '.join(roles) or 'any'}.")


def holds_anywhere(user: Any, *roles: str) -> bool:
    """Whether one of ``roles`` is held on any assistant: what decides if a page is shown in the menu. No query once
    the roles have been read."""
    wanted = set(roles)
    return _is_superuser(user) or any(held & wanted for held in roles_by_assistant(user).values())


def assistants_of(user: Any, *roles: str) -> QuerySet[Assistant]:
    """The assistants on which ``user`` holds one of ``roles`` (any role when none is named)."""
    if _is_superuser(user):
        return Assistant.objects.all()
    wanted = set(roles) or ALL_ROLES
    keys = [key for key, held in roles_by_assistant(user).items() if held & wanted]
    return Assistant.objects.filter(pk__in=keys)


def _is_superuser(user: Any) -> bool:
    return bool(getattr(user, "is_active", False) and getattr(user, "is_superuser", False))

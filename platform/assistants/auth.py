"""API keys on the wire: `Authorization: Bearer rk_…` becomes an `ApiKey`, or a 401 or 403 that says why."""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from assistants.errors import ApiError
from assistants.key_lookup import find_key
from assistants.models import ApiKey, Scope

CHALLENGE = 'Bearer realm="ratchet"'
USED_RESOLUTION = timedelta(minutes=1)
"""``last_used_at`` is written at most this often: a write per request would cost more than the request."""
MAX_SECRET = 200


def authenticate_key(header: str | None) -> ApiKey:
    """The usable key that an Authorization header names, with its assistant loaded (one query).

    Raises:
        assistants.errors.ApiError: 401, the header is missing or malformed, or the key is unknown, revoked or expired.
    """
    scheme, _, secret = (header or "").strip().partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret or len(secret) > MAX_SECRET or not secret.isascii():
        raise _unauthorised("Send a key: Authorization: Bearer rk_…")
    digest = ApiKey.digest_of(secret)
    key = find_key(digest)
    # The index compares digests, not secrets, so its timing tells nothing; this comparison is the decision.
    if key is None or not hmac.compare_digest(key.digest, digest):
        raise _unauthorised("This key is not known.")
    if key.revoked_at is not None:
        raise _unauthorised("This key has been revoked.")
    if not key.is_usable:
        raise _unauthorised("This key has expired.")
    _note_use(key)
    return key


def require_scope(key: ApiKey, scope: str) -> None:
    """Raises:
    assistants.errors.ApiError: 403, the key lacks ``scope``.
    """
    if scope not in key.scopes:
        raise ApiError(403, detail=f"This key lacks the scope {Scope(scope).value!r} ({Scope(scope).label.lower()}).")


class ApiKeyAuthentication(BaseAuthentication):
    """For API views: ``request.auth`` is the `ApiKey`; a key is a program, so ``request.user`` stays anonymous."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ApiKey]:
        return AnonymousUser(), authenticate_key(request.META.get("HTTP_AUTHORIZATION"))

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE


class HasScope(BasePermission):
    """Lets a key in that holds the scope its view names for the method: ``scopes = {"POST": Scope.LOG}``."""

    def has_permission(self, request: Request, view: Any) -> bool:
        scope = view.scopes.get(request.method)
        if scope is not None and isinstance(request.auth, ApiKey):
            require_scope(request.auth, scope)
            return True
        return False


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How the API description names it."""

    target_class = ApiKeyAuthentication
    name = "ApiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "rk_…"}


def _note_use(key: ApiKey) -> None:
    now = timezone.now()
    if key.last_used_at is not None and key.last_used_at > now - USED_RESOLUTION:
        return
    due = Q(last_used_at=None) | Q(last_used_at__lte=now - USED_RESOLUTION)
    ApiKey.objects.filter(due, pk=key.pk).update(last_used_at=now)


def _unauthorised(detail: str) -> ApiError:
    return ApiError(401, detail=detail, headers={"WWW-Authenticate": CHALLENGE})

"""Who looked at whose data: one row per page, kept for a bounded time.

Acts stay in the audit trail for good; looks would drown them, and are themselves data about people at work. So they are
forgotten after `RATCHET_VIEW_AUDIT_DAYS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from assistants.models import VIEWED, AuditEvent

_BATCH = 10_000


def note_view(
    *, assistant_id: int, actor: User, what: str, target: str = "", details: Mapping[str, Any] | None = None
) -> None:
    """One look: a single insert. ``what``: ``turn``, ``item``, ``annotations``, …"""
    AuditEvent.objects.create(
        assistant_id=assistant_id,
        actor=actor,
        actor_name=actor.get_username()[:150],
        action=f"{what}{VIEWED}",
        target=target[:200],
        details=dict(details or {}),
    )


def forget_views() -> int:
    """Deletes looks that are older than `RATCHET_VIEW_AUDIT_DAYS`, in batches; returns how many. Run each day."""
    before = timezone.now() - timedelta(days=settings.RATCHET_VIEW_AUDIT_DAYS)
    old = AuditEvent.objects.filter(action__endswith=VIEWED, at__lt=before).order_by("at")
    forgotten = 0
    while gone := AuditEvent.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:_BATCH])).delete()[0]:
        forgotten += gone
    return forgotten


class AuditedViews:
    """Mixed into an admin page before `ScopedAdmin`: each list and each row that is shown leaves a look.

    ``viewed_as`` names what is looked at, in the singular. Of a list is kept which filters were set, never their words.
    """

    viewed_as: ClassVar[str]
    assistant_path: ClassVar[str]

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().change_view(request, object_id, *args, **kwargs)  # type: ignore[misc]
        if isinstance(response, TemplateResponse) and isinstance(request.user, User):
            row = (response.context_data or {}).get("original")
            if row is not None:
                key = _assistant_key(row, self.assistant_path)
                note_view(assistant_id=key, actor=request.user, what=self.viewed_as, target=str(row.pk))
        return response

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().changelist_view(request, *args, **kwargs)  # type: ignore[misc]
        shown = (response.context_data or {}).get("cl") if isinstance(response, TemplateResponse) else None
        if shown is not None and isinstance(request.user, User):
            filters = sorted(set(request.GET) - {"p", "e", "o"})
            for key, n in Counter(_assistant_key(row, self.assistant_path) for row in shown.result_list).items():
                note_view(
                    assistant_id=key,
                    actor=request.user,
                    what=f"{self.viewed_as}_list",
                    details={"n": n, "filters": filters},
                )
        return response


def _assistant_key(row: Model, path: str) -> int:
    """Without loading the assistant: the last step is a foreign key."""
    found: Any = row
    *steps, last = path.split("__")
    for step in steps:
        found = getattr(found, step)
    return int(getattr(found, f"{last}_id"))

"""Background work in the admin: a list that shows how far it is; on its page progress, time left, cancel and log."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import has_role
from assistants.background import BackgroundWork
from assistants.models import Role
from assistants.performing import log_path
from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin

READERS = (Role.ADMIN.value, Role.REVIEWER.value)
ADMINS = (Role.ADMIN.value,)
LOG_BYTES = 8_000
STATE_COLOURS = {
    BackgroundWork.State.QUEUED: "info",
    BackgroundWork.State.RUNNING: "warning",
    BackgroundWork.State.SUCCEEDED: "success",
    BackgroundWork.State.FAILED: "danger",
}


class WorkAdmin(ScopedAdmin):
    """Lists of background work: state, progress, how long."""

    view_roles = READERS
    list_per_page = 50
    show_full_result_count = False

    @display(description="State", ordering="state", label=STATE_COLOURS)
    def state_label(self, obj: BackgroundWork) -> tuple[str, str]:
        sign = {"succeeded": "✓ ", "failed": "✗ ", "cancelled": "◌ "}.get(obj.state, "")
        return obj.state, sign + obj.get_state_display()

    @admin.display(description="Progress")
    def how_far(self, obj: BackgroundWork) -> str:
        done, total = obj.progress.get("done"), obj.progress.get("total")
        if not obj.is_active:
            return obj.error[:80]
        return f"{done} of {total}" if total else str(obj.progress.get("stage", ""))

    @admin.display(description="Took")
    def took(self, obj: BackgroundWork) -> str:
        return "" if obj.seconds is None else f"{obj.seconds:.0f} s"

    @admin.display(description="Started", ordering="created_at")
    def when(self, obj: BackgroundWork) -> SafeString | str:
        return moment(obj.created_at)


class WorkPageAdmin(WorkAdmin):
    """With the two addresses that `assistants/_work.html` needs: what changes meanwhile, and cancel."""

    cancel_roles: ClassVar[Collection[str]] = ADMINS

    def cancel(self, work: Any, actor: Any) -> bool:
        """Asks the work to stop, in the words of its room's service. False when it had ended already."""
        raise NotImplementedError

    def get_urls(self) -> list[URLPattern]:
        staff, name = self.admin_site.admin_view, self._name
        own = [
            path("<int:pk>/live/", staff(self.live_view), name=name("live")),
            path("<int:pk>/cancel/", staff(self.cancel_view), name=name("cancel")),
        ]
        return [*own, *super().get_urls()]

    def _name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

    def readable(self, request: HttpRequest, pk: Any) -> Any:
        """The row, if this person may read it.

        Raises:
            Http404: there is none, or it is another assistant's: nobody learns which.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        work = self.get_object(request, str(pk))
        if work is None:
            raise Http404("There is no such page.")
        return work

    def live_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return JsonResponse(live_state(self.readable(request, pk)))

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        work = self.readable(request, pk)
        if not has_role(request.user, work.assistant, *self.cancel_roles):
            raise PermissionDenied(f"Only these roles cancel it: {', '.join(self.cancel_roles)}.")
        if self.cancel(work, request.user):
            messages.success(request, f"{work} stops." if work.is_active else f"{work} was taken out of the queue.")
        else:
            messages.warning(request, f"{work} had ended already.")
        return HttpResponseRedirect(reverse(f"admin:{self._name('change')}", args=[pk]))

    def panel(self, request: HttpRequest, work: BackgroundWork) -> dict[str, Any]:
        """What `assistants/_work.html` shows, as ``panel``."""
        assistant: Any = work.assistant  # type: ignore[attr-defined]
        return {
            "work": work,
            "live": live_state(work),
            "live_url": reverse(f"admin:{self._name('live')}", args=[work.pk]),
            "cancel_url": reverse(f"admin:{self._name('cancel')}", args=[work.pk])
            if work.can_cancel and has_role(request.user, assistant, *self.cancel_roles)
            else "",
        }


def live_state(work: BackgroundWork) -> dict[str, Any]:
    """What a waiting page asks for every second or two."""
    progress = work.progress
    return {
        "state": work.state,
        "label": work.get_state_display(),
        "active": work.is_active,
        "cancelling": work.is_active and work.cancel_requested_at is not None,
        "stage": str(progress.get("stage", "")),
        "done": progress.get("done") or 0,
        "total": progress.get("total") or 0,
        "eta_seconds": seconds_left(work),
        "seconds": work.seconds,
        "log": log_tail(log_path(work._meta.label, work.pk)),
    }


def seconds_left(work: BackgroundWork) -> float | None:
    """Its own estimate, or what is left at the speed so far; None while nothing can be said."""
    if work.state != BackgroundWork.State.RUNNING:
        return None
    own = work.progress.get("eta_seconds")
    if own is not None:
        return float(own)
    done, total, spent = work.progress.get("done") or 0, work.progress.get("total") or 0, work.seconds
    if not done or not total or spent is None:
        return None
    return spent * max(total - done, 0) / done


def log_tail(path: Path) -> str:
    """The end of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""

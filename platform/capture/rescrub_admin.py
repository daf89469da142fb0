"""Re-scrubs in the admin: a dry run first, then the real one; progress, cancel, what changed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.models import Role
from assistants.policies import newest
from assistants.work_admin import WorkPageAdmin
from capture.models import Rescrub
from capture.rescrubbing import AlreadyRunning, cancel_rescrub, start_rescrub

OFFICERS = (Role.PRIVACY.value, Role.ADMIN.value)


@admin.register(Rescrub)
class RescrubAdmin(WorkPageAdmin):
    view_roles = OFFICERS
    cancel_roles = OFFICERS
    list_display = ("name", "assistant", "policy_number", "state_label", "how_far", "found", "when", "took")
    list_filter = ("state", "dry_run", "assistant")
    list_select_related = ("assistant", "policy")
    list_before_template = "capture/rescrub_top.html"
    ordering = ("-pk",)

    def get_urls(self) -> list[URLPattern]:
        start = path("start/<int:pk>/", self.admin_site.admin_view(self.start_view), name=self._name("start"))
        return [start, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *OFFICERS).order_by("name")[:100]
        return super().changelist_view(request, {"own": own, **(extra_context or {})})

    @display(description="Run", ordering="pk")
    def name(self, row: Rescrub) -> str:
        return str(row)

    @display(description="Policy")
    def policy_number(self, row: Rescrub) -> str:
        return f"version {row.policy.number}" if row.policy else "the defaults"

    @display(description="Masks")
    def found(self, row: Rescrub) -> str:
        return f"{sum(row.counts.get('masks', {}).values()):,}" if row.counts else "–"

    def cancel(self, work: Any, actor: Any) -> bool:
        return cancel_rescrub(work=work, actor=actor)

    def start_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Starts one for the assistant ``pk``: a dry run unless ``apply`` is posted."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        assistant = assistants_of(request.user, *OFFICERS).filter(pk=pk).first()
        if assistant is None:
            raise Http404("There is no such page.")
        actor: Any = request.user
        try:
            work = start_rescrub(assistant=assistant, dry_run="apply" not in request.POST, actor=actor)
        except AlreadyRunning as refused:
            messages.warning(request, str(refused))
            work = refused.work
        return HttpResponseRedirect(reverse("admin:capture_rescrub_change", args=[work.pk]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        work: Rescrub = self.readable(request, object_id)
        counts = work.counts
        rows = [
            (name, counts[name])
            for name in (
                "turns", "passages", "feedback", "annotations", "missed", "machine_labels", "live_answers",
                "resolutions",
            )
            if name in counts
        ]
        current = newest(work.assistant)
        context = {
            **self.admin_site.each_context(request), "opts": self.opts, "title": str(work), "work": work,
            "panel": self.panel(request, work), "rows": rows, "seen": counts.get("seen", 0),
            "failed": counts.get("failed", 0),
            "masks": sorted((k.replace("_", " ").lower(), n) for k, n in counts.get("masks", {}).items()),
            "is_current": (current.pk if current else None) == work.policy_id,
            "may_apply": work.dry_run and work.state == Rescrub.State.SUCCEEDED,
        }  # fmt: skip
        return TemplateResponse(request, "capture/rescrub.html", context)

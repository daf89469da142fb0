"""Leak audits in the admin: what was found where, and the one button that lets it pass."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import has_role
from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from capture.admin_parts import moment
from capture.leak_reports import LeakReport
from capture.leaks import OverrideRefused, override

READERS = (Role.PRIVACY.value, Role.ADMIN.value, Role.REVIEWER.value)
PRIVACY = (Role.PRIVACY.value,)
SHOWN = 200


@admin.register(LeakReport)
class LeakReportAdmin(ScopedAdmin):
    """Rows, fields and types; a value stands nowhere here."""

    when_empty = "Start an audit to see what a strict policy finds in what is stored."
    view_roles = READERS
    list_display = ("__str__", "assistant", "outcome", "hits", "rows", "when")
    list_filter = ("verdict", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "capture/leak_list_top.html"
    search_fields = ("subject",)
    show_full_result_count = False

    @display(description="Outcome", label={"clean": "success", "blocked": "danger", "let pass": "warning"})
    def outcome(self, report: LeakReport) -> str:
        return report.verdict if report.overridden_at is None else "let pass"

    @display(description="Findings")
    def hits(self, report: LeakReport) -> str:
        return " · ".join(f"{n} {kind}" for kind, n in sorted(report.counts.items())) or "–"

    @display(description="Audited", ordering="created_at")
    def when(self, report: LeakReport) -> SafeString:
        return moment(report.created_at)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        any_rows = {"any_rows": self.get_queryset(request).exists()}
        return super().changelist_view(request, {**any_rows, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = path("<int:pk>/override/", staff(self.override_view), name="capture_leakreport_override")
        return [own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        report = self._report(request, object_id)
        context = {
            **self.admin_site.each_context(request),
            "title": str(report),
            "report": report,
            "findings": report.findings[:SHOWN],
            "doubtful": report.doubtful[:SHOWN],
            "more": max(0, report.total - SHOWN),
            "datasets": list(report.datasets.only("number")),
            "by_canary": any(finding["by"] == "canary" for finding in report.findings),
            "may_override": report.blocks and has_role(request.user, report.assistant, *PRIVACY),
        }
        return TemplateResponse(request, "capture/leak_report.html", context)

    def override_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        report = self._report(request, str(pk))
        if not has_role(request.user, report.assistant, *PRIVACY):
            raise PermissionDenied("Only privacy officers let findings pass.")
        try:
            user: Any = request.user
            override(report=report, actor=user, reason=request.POST.get("reason", ""))
            messages.success(request, "Let pass. The same values block no later audit.")
        except OverrideRefused as refused:
            messages.error(request, str(refused))
        return HttpResponseRedirect(reverse("admin:capture_leakreport_change", args=[pk]))

    def _report(self, request: HttpRequest, pk: str) -> LeakReport:
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = self.get_object(request, pk)
        if not isinstance(found, LeakReport):
            raise Http404("There is no such report.")
        return found

"""Erasures in the admin: privacy officers ask and confirm, admins read the receipts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from unfold.decorators import display

from assistants.access import has_role
from assistants.models import Role
from assistants.work_admin import WorkPageAdmin
from serving.erasure import pages
from serving.erasure.record import Erasure
from serving.erasure.services import withdraw

MOST_STOPPED = 5


@admin.register(Erasure)
class ErasureAdmin(WorkPageAdmin):
    """One row from the dry run to the receipt."""

    view_roles = (Role.PRIVACY.value, Role.ADMIN.value)
    add_roles = pages.PRIVACY
    list_display = ("__str__", "assistant", "kind", "step", "turns", "confirmed_name", "state_label", "when")
    list_filter = ("kind", "state", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "serving/erasure_list_top.html"

    @display(description="Step", label={"receipt": "success", "dry run": "info", "unfinished": "warning"})
    def step(self, erasure: Erasure) -> str:
        return "receipt" if erasure.is_done else "dry run" if erasure.is_dry else "unfinished"

    @display(description="Turns")
    def turns(self, erasure: Erasure) -> Any:
        return erasure.counts.get("turns", 0) if erasure.is_done else erasure.plan.get("turns", "–")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        rows = self.get_queryset(request)
        active = [Erasure.State.QUEUED, Erasure.State.RUNNING]
        stopped = rows.filter(confirmed_at__isnull=False, receipt={}).exclude(state__in=active)
        own = {
            "any_rows": rows.exists(),
            "may_add": self.has_add_permission(request),
            "stopped": list(stopped.only("pk").order_by("pk")[:MOST_STOPPED]),
        }
        return super().changelist_view(request, {**own, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("<int:pk>/confirm/", staff(self.confirm_view), name="serving_erasure_confirm"),
            path("<int:pk>/go-on/", staff(self.go_on_view), name="serving_erasure_go_on"),
            path("<int:pk>/receipt/", staff(self.receipt_view), name="serving_erasure_receipt"),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied("Only privacy officers erase.")
        return pages.ask_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        erasure = self.readable(request, object_id)
        panel = self.panel(request, erasure)
        may_stop = erasure.is_dry and erasure.can_cancel and has_role(request.user, erasure.assistant, *pages.PRIVACY)
        panel["cancel_url"] = reverse("admin:serving_erasure_cancel", args=[erasure.pk]) if may_stop else ""
        return pages.erasure_page(request, erasure, panel)

    def confirm_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self._by_officer(request, pk, pages.confirm_from_page)

    def go_on_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self._by_officer(request, pk, pages.go_on_from_page)

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self._by_officer(request, pk, self._withdraw)

    def receipt_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        erasure = self.readable(request, pk)
        if not erasure.is_done:
            raise Http404("There is no receipt yet.")
        return pages.receipt_download(erasure)

    def _withdraw(self, request: HttpRequest, erasure: Erasure) -> HttpResponse:
        actor: Any = request.user
        if withdraw(erasure=erasure, actor=actor):
            messages.success(request, "Forgotten. Nothing was erased.")
        else:
            messages.error(request, "It is an erasure by now: it can only be finished.")
        return HttpResponseRedirect(reverse("admin:serving_erasure_change", args=[erasure.pk]))

    def _by_officer(
        self, request: HttpRequest, pk: int, act: Callable[[HttpRequest, Erasure], HttpResponse]
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        erasure = self.readable(request, pk)
        if not has_role(request.user, erasure.assistant, *pages.PRIVACY):
            raise PermissionDenied("Only privacy officers erase.")
        return act(request, erasure)

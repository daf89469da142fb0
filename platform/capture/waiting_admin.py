"""Traces that wait for the rest of their spans, in the admin: counts, ages and decisions, never a payload."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.scoped_admin import ScopedAdmin
from capture.admin_parts import moment
from capture.models import WaitingSpans
from capture.otlp.closing import delete_spans, retry_spans
from capture.quarantine_admin import PRIVACY_ONLY, ReasonForm, each_assistant


@admin.register(WaitingSpans)
class WaitingSpansAdmin(ScopedAdmin):
    """One row for the spans of one trace out of one request."""

    when_empty = "Traces wait here until the one that holds question and answer has come; then they become a turn."
    view_roles = PRIVACY_ONLY
    list_display = ("trace", "assistant", "status", "spans", "has_root", "error", "kilobytes", "age")
    list_display_links = None
    list_filter = ("has_root", "assistant")
    list_select_related = ("assistant",)
    search_fields = ("trace__startswith",)
    ordering = ("pk",)
    show_full_result_count = False
    action_form = ReasonForm
    actions = ("retry", "destroy")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WaitingSpans]:
        rows: QuerySet[WaitingSpans] = super().get_queryset(request)
        return rows.defer("payload")

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("Waiting spans have no page.")

    @display(description="State", label={"held": "warning", "waiting": "info"})
    def status(self, row: WaitingSpans) -> str:
        return "held" if row.error else "waiting"

    @display(description="Size", ordering="size")
    def kilobytes(self, row: WaitingSpans) -> str:
        return f"{row.size / 1000:.1f} kB"

    @display(description="Received", ordering="received_at")
    def age(self, row: WaitingSpans) -> SafeString:
        return moment(row.received_at)

    @admin.action(description="Try to join held ones again")
    def retry(self, request: HttpRequest, rows: QuerySet[WaitingSpans]) -> None:
        count = each_assistant(request, rows, retry_spans)
        self.message_user(request, f"{count} rows are waiting again.", messages.SUCCESS)

    @admin.action(description="Delete for good")
    def destroy(self, request: HttpRequest, rows: QuerySet[WaitingSpans]) -> None:
        count = each_assistant(request, rows, delete_spans)
        self.message_user(request, f"{count} rows were deleted for good.", messages.SUCCESS)

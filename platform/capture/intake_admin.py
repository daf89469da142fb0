"""The page Intake: is what comes in also scrubbed, and what is turned away. Counts only, never a text."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from capture.counting import flush_due
from capture.intake_numbers import intake_of, refusals_of
from capture.models import IntakeCount, Metric

KEEPERS = (Role.ADMIN.value, Role.PRIVACY.value)
SHOWN_REFUSALS = 100
REASONS = {
    "invalid": "a field was not valid, or there was no such turn",
    "conflict": "an id was used again with other content",
    "unreadable": "not JSON, or not gzip",
    "too large": "more bytes or items than a request may have",
    "content type": "a content type or encoding that is not taken",
    "rate": "more requests than the key may make",
    "full": "the quarantine, or the room for waiting traces, was full",
    "scope": "the key may not post",
    "spans": "spans that no turn can be made of",
}


@admin.register(IntakeCount)
class IntakeAdmin(ScopedAdmin):
    """The list is a page of its own; single counts have none."""

    view_roles = KEEPERS

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        flush_due()  # what this very process has counted
        mine = assistants_of(request.user, *KEEPERS)
        names = dict(mine.order_by("name").values_list("slug", "name"))
        chosen = request.GET.get("assistant", "")
        shown = mine.filter(slug=chosen) if chosen in names else mine
        intakes = intake_of(shown)
        assistants = {intake.assistant.pk: intake.assistant for intake in intakes}
        refusals = refusals_of(assistants.values(), limit=SHOWN_REFUSALS)
        context = {
            **self.admin_site.each_context(request), **(extra_context or {}), "opts": self.opts, "title": "Intake",
            "intakes": intakes, "names": names, "chosen": chosen if chosen in names else "",
            "refusals": [(assistants[row.assistant_id], row, REASONS.get(row.reason, "")) for row in refusals],
            "full": len(refusals) == SHOWN_REFUSALS,
            "worst": max(intakes, key=lambda intake: intake.fullness, default=None),
            "waiting": sum(intake.waiting for intake in intakes),
            "held": sum(intake.held for intake in intakes),
            "oldest": min((intake.oldest for intake in intakes if intake.oldest), default=None),
        }  # fmt: skip
        return TemplateResponse(request, "capture/intake.html", context)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("Counts have no page of their own.")


@admin.register(Metric)
class MetricAdmin(ScopedAdmin):
    """Metrics that the chatbot posts as feedback; the first post of a name declares it, and so does this page."""

    when_empty = "Scores of programs (latency, evaluations) that come with feedback are listed here."
    view_roles = (Role.ADMIN.value, Role.REVIEWER.value, Role.PRIVACY.value)
    add_roles = (Role.ADMIN.value,)
    change_roles = (Role.ADMIN.value,)
    delete_roles = ()  # what was posted under it would lose its meaning
    list_display = ("name", "assistant", "values", "description", "created_at")
    list_filter = ("holds", "assistant")
    list_select_related = ("assistant",)
    search_fields = ("name", "description")
    fields = ("assistant", "name", "holds", "description")
    show_full_result_count = False

    @display(description="Values")
    def values(self, metric: Metric) -> str:
        return metric.get_holds_display()

    def get_readonly_fields(self, request: HttpRequest, obj: Metric | None = None) -> tuple[str, ...]:
        return ("assistant", "name", "holds") if obj is not None else ()

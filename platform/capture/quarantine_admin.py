"""The quarantine in the admin: counts, ages and decisions, never a payload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Min, Q, QuerySet
from django.db.models.functions import Length
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminTextInputWidget

from assistants.access import assistants_of
from assistants.models import Assistant, Role
from assistants.scoped_admin import ScopedAdmin
from capture.admin_parts import actor_of, moment
from capture.models import Quarantine
from capture.services import delete_held, retry_held

PRIVACY_ONLY = (Role.PRIVACY.value,)


class ReasonForm(ActionForm):
    """An action with a word on why, for the audit trail."""

    reason = forms.CharField(
        label="", required=False, max_length=200,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "Why (kept in the audit trail)"}),
    )  # fmt: skip


@admin.register(Quarantine)
class QuarantineAdmin(ScopedAdmin):
    """What waits to be scrubbed or was held. Nobody reads a payload here: it is encrypted and stays so."""

    when_empty = "What could not be stored as a turn would wait here, with the reason."
    view_roles = PRIVACY_ONLY
    list_display = ("number", "kind", "assistant", "status", "attempts", "error", "size", "age")
    list_display_links = None
    list_filter = ("state", "kind", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "capture/quarantine_top.html"
    ordering = ("pk",)
    show_full_result_count = False
    action_form = ReasonForm
    actions = ("retry", "destroy")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quarantine]:
        rows: QuerySet[Quarantine] = super().get_queryset(request)

        return rows.annotate(n_bytes=Length("payload")).defer("payload")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        numbers = Quarantine.objects.filter(assistant__in=assistants_of(request.user, *PRIVACY_ONLY)).aggregate(
            held=Count("pk", filter=Q(state="held")),
            waiting=Count("pk", filter=Q(state="waiting")),
            oldest=Min("received_at"),
        )
        return super().changelist_view(request, {"numbers": numbers, **(extra_context or {})})

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("A payload in quarantine has no page.")

    @display(description="Item", ordering="pk")
    def number(self, row: Quarantine) -> str:
        return f"#{row.pk}"

    @display(description="State", label={"held": "warning", "waiting": "info", "being scrubbed": "info"})
    def status(self, row: Quarantine) -> str:
        if row.state == Quarantine.State.WAITING and row.claimed_until and row.claimed_until > timezone.now():
            return "being scrubbed"
        return row.state

    @display(description="Size")
    def size(self, row: Quarantine) -> str:
        return f"{row.n_bytes / 1000:.1f} kB"  # type: ignore[attr-defined]

    @display(description="Received", ordering="received_at")
    def age(self, row: Quarantine) -> SafeString:
        return moment(row.received_at)

    @admin.action(description="Try to scrub again")
    def retry(self, request: HttpRequest, rows: QuerySet[Quarantine]) -> None:
        count = each_assistant(request, rows, retry_held)
        self.message_user(request, f"{count} items are waiting again.", messages.SUCCESS)

    @admin.action(description="Delete for good")
    def destroy(self, request: HttpRequest, rows: QuerySet[Quarantine]) -> None:
        if not request.POST.get("reason", "").strip():
            self.message_user(
                request, "Nothing was deleted. Say why beside the action: it is for good.", messages.ERROR
            )
            return
        count = each_assistant(request, rows, delete_held)
        self.message_user(request, f"{count} held items were deleted for good.", messages.SUCCESS)


def each_assistant(request: HttpRequest, rows: QuerySet[Any], act: Callable[..., int]) -> int:
    """Calls a service for the chosen rows of each assistant on which the person may decide; how many it changed."""
    chosen: dict[int, list[int]] = {}
    for key, assistant_id in rows.order_by("pk").values_list("pk", "assistant_id"):
        chosen.setdefault(assistant_id, []).append(key)
    allowed: QuerySet[Assistant] = assistants_of(request.user, *PRIVACY_ONLY).filter(pk__in=chosen)
    reason = request.POST.get("reason", "")[:200]
    return sum(
        act(assistant=assistant, items=chosen[assistant.pk], actor=actor_of(request), reason=reason)
        for assistant in allowed
    )

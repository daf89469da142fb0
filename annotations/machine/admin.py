"""Machine labels in the admin: read only, apart from those of people."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from annotations.machine.models import MachineLabel
from annotations.machine.names import MachineFilter
from assistants.models import Role
from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin
from assistants.viewing import AuditedViews
from assistants.when import when


@admin.register(MachineLabel)
class MachineLabelAdmin(AuditedViews, ScopedAdmin):
    when_empty = "Labels of judge models and programs, which are kept apart from those of people."
    viewed_as = "machine_label"
    view_roles = (Role.REVIEWER.value, Role.ADMIN.value)
    list_display = ("question", "verdict_shown", "score", "why", "kind", "name", "version", "said")
    list_filter = (
        "assistant", "kind", ("name", MachineFilter), ("version", MachineFilter), "verdict", when("created_at", "said"),
    )  # fmt: skip
    list_select_related = ("turn",)
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("turn__question", "turn__client_id", "client_id", "name", "explanation")
    fields = (
        "question", "logged", "verdict", "score", "why", "explanation", "kind", "name", "version", "client_id",
        "posted_with", "said",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[MachineLabel]:
        return super().get_queryset(request).defer("turn__embedding", "turn__words")

    @display(description="Said", ordering="created_at")
    def said(self, label: MachineLabel) -> SafeString | str:
        return moment(label.created_at)

    @display(description="API key")
    def posted_with(self, label: MachineLabel) -> str:
        """Its name and no link: keys are for admins, and reviewers read this page."""
        return label.api_key.name if label.api_key else "–"

    @display(description="Question")
    def question(self, label: MachineLabel) -> str:
        return label.turn.question[:90]

    @display(description="Logged answer")
    def logged(self, label: MachineLabel) -> str:
        return label.turn.response

    @display(description="Verdict", label={"good": "success", "bad": "danger"}, ordering="verdict")
    def verdict_shown(self, label: MachineLabel) -> tuple[str, str] | str:
        return (label.verdict, label.get_verdict_display()) if label.verdict else "–"

    @display(description="Reasons")
    def why(self, label: MachineLabel) -> str:
        return " · ".join(label.reason_labels) or "–"

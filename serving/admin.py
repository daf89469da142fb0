"""What is live, and how it came to be: read here, changed on the pages that ask for a reason."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from assistants.when import when
from serving.adapter_admin import ServedAdapterAdmin
from serving.alerts.admin import AlertAdmin, AlertChannelAdmin
from serving.alerts.unserved import why_base_answers
from serving.dashboards.adapters import deployment_context
from serving.erasure_admin import ErasureAdmin
from serving.experiment_admin import DriftReportAdmin, ExperimentAdmin
from serving.models import Deployment, Promotion
from serving.suggestion_admin import SuggestionRunAdmin

__all__ = [
    "AlertAdmin",
    "AlertChannelAdmin",
    "DeploymentAdmin",
    "DriftReportAdmin",
    "ErasureAdmin",
    "ExperimentAdmin",
    "PromotionAdmin",
    "ServedAdapterAdmin",
    "SuggestionRunAdmin",
]

READERS = (Role.ADMIN, Role.REVIEWER)


@admin.register(Deployment)
class DeploymentAdmin(ScopedAdmin):
    when_empty = "What answers each assistant's users: the base model until an adapter is promoted."
    view_roles = READERS
    list_display: ClassVar = ("assistant", "live", "before", "changed_at")
    list_select_related: ClassVar = ("assistant", "adapter__run__dataset", "previous")
    fields: ClassVar = ("assistant", "adapter", "previous", "changed_at")
    readonly_fields: ClassVar = fields
    change_form_template = "serving/deployment.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        deployment = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if deployment is not None:
            extra |= deployment_context(request, deployment)
        return super().change_view(request, object_id, form_url, extra)

    @admin.display(description="Live", ordering="adapter")
    def live(self, obj: Deployment) -> str:
        if obj.adapter is None:
            return "base model"
        if why := why_base_answers(obj):
            return f"✗ base model answers, not {obj.adapter}: {why}"
        return f"● {obj.adapter}{', holds erased data' if obj.adapter.erased_rows else ''}"

    @admin.display(description="One step back")
    def before(self, obj: Deployment) -> str:
        if not obj.has_previous:
            return "–"
        return str(obj.previous or "base model")


@admin.register(Promotion)
class PromotionAdmin(ScopedAdmin):
    when_empty = "Every step of what is live, with who and why."
    view_roles = READERS
    list_display: ClassVar = (
        "at", "assistant", "action", "from_adapter", "to_adapter", "share", "overrides_gate", "actor", "reason",
    )  # fmt: skip
    list_filter: ClassVar = (when("at"), "action", "overrides_gate", "assistant")
    list_select_related: ClassVar = ("assistant", "from_adapter", "to_adapter", "actor")

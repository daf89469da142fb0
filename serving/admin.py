"""What is live, and how it came to be: read here, changed on the pages that ask for a reason."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin

from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from serving.alerts.admin import AlertAdmin, AlertChannelAdmin
from serving.erasure_admin import ErasureAdmin
from serving.models import Deployment, Promotion

__all__ = ["AlertAdmin", "AlertChannelAdmin", "DeploymentAdmin", "ErasureAdmin", "PromotionAdmin"]

READERS = (Role.ADMIN, Role.REVIEWER)


@admin.register(Deployment)
class DeploymentAdmin(ScopedAdmin):
    view_roles = READERS
    list_display: ClassVar = ("assistant", "live", "before", "changed_at")
    list_select_related: ClassVar = ("assistant", "adapter__run__dataset", "previous")
    fields: ClassVar = ("assistant", "adapter", "previous", "changed_at")
    readonly_fields: ClassVar = fields
    change_form_template = "serving/deployment.html"

    @admin.display(description="Live", ordering="adapter")
    def live(self, obj: Deployment) -> str:
        if obj.adapter is None:
            return "base model"
        return f"● {obj.adapter}{', holds erased data' if obj.adapter.erased_rows else ''}"

    @admin.display(description="One step back")
    def before(self, obj: Deployment) -> str:
        if not obj.has_previous:
            return "–"
        return str(obj.previous or "base model")


@admin.register(Promotion)
class PromotionAdmin(ScopedAdmin):
    view_roles = READERS
    list_display: ClassVar = (
        "at", "assistant", "action", "from_adapter", "to_adapter", "overrides_gate", "actor", "reason",
    )  # fmt: skip
    list_filter: ClassVar = ("action", "overrides_gate", "assistant")
    list_select_related: ClassVar = ("assistant", "from_adapter", "to_adapter", "actor")
    date_hierarchy = "at"

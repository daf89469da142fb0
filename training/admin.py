"""The training room in the admin. Rows are made by services and read here; nothing is edited by hand."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from assistants.background import BackgroundWork
from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from training import views_runs
from training.models import Adapter, DatasetVersion, Run

READERS = (Role.ADMIN.value, Role.REVIEWER.value)
ADMINS = (Role.ADMIN.value,)
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

    @display(description="State", ordering="state", label=STATE_COLOURS)
    def state_label(self, obj: BackgroundWork) -> tuple[str, str]:
        return obj.state, obj.get_state_display()

    @admin.display(description="Progress")
    def how_far(self, obj: BackgroundWork) -> str:
        done, total = obj.progress.get("done"), obj.progress.get("total")
        if not obj.is_active:
            return obj.error[:80]
        return f"{done} of {total}" if total else str(obj.progress.get("stage", ""))

    @admin.display(description="Took")
    def took(self, obj: BackgroundWork) -> str:
        return "" if obj.seconds is None else f"{obj.seconds:.0f} s"


# --- Datasets ---------------------------------------------------------------------------------------------------------


@admin.register(DatasetVersion)
class DatasetAdmin(WorkAdmin):
    list_display = (
        "number",
        "assistant",
        "state_label",
        "rows",
        "mix_text",
        "content",
        "how_far",
        "created_at",
        "train",
    )
    list_filter = ("assistant", "state")
    list_select_related = ("assistant",)
    fields = (
        "assistant", "number", "state", "rows", "content_hash", "prompt_digest", "benchmark", "synthesis", "recipe",
        "mix", "funnel", "blocked", "documents", "error", "created_by", "created_at", "finished_at",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description="Mix")
    def mix_text(self, obj: DatasetVersion) -> str:
        return " · ".join(f"{origin} {sum(kinds.values())}" for origin, kinds in sorted(obj.mix.items()))

    @admin.display(description="Content")
    def content(self, obj: DatasetVersion) -> str:
        return obj.content_hash[:12]

    @admin.display(description="")
    def train(self, obj: DatasetVersion) -> str:
        if obj.state != BackgroundWork.State.SUCCEEDED or not obj.rows:
            return ""
        return format_html('<a href="{}?dataset={}">Train</a>', reverse("admin:training_run_start"), obj.pk)


# --- Runs -------------------------------------------------------------------------------------------------------------


@admin.register(Run)
class RunAdmin(WorkAdmin):
    """The list is the admin's; a run's own page is `training.views_runs`."""

    add_roles = ADMINS
    list_display = ("__str__", "assistant", "dataset", "state_label", "how_far", "loss", "took", "seed", "created_at")
    list_filter = ("assistant", "state")
    list_select_related = ("assistant", "dataset")
    date_hierarchy: ClassVar = None

    @admin.display(description="Loss")
    def loss(self, obj: Run) -> str:
        value = obj.progress.get("loss")
        return "" if value is None else f"{value:.3f}"

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("start/", staff(views_runs.start_page), name="training_run_start"),
            path("<int:pk>/live/", staff(views_runs.run_live), name="training_run_live"),
            path("<int:pk>/cancel/", staff(views_runs.run_cancel), name="training_run_cancel"),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:training_run_start"))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not object_id.isdecimal():
            return super().change_view(request, object_id, form_url, extra_context)
        return views_runs.run_page(request, int(object_id))


# --- Adapters ---------------------------------------------------------------------------------------------------------


@admin.register(Adapter)
class AdapterAdmin(ScopedAdmin):
    view_roles = READERS
    list_display = ("__str__", "assistant", "dataset", "verdict", "size", "base", "prompt_digest", "created_at")
    list_filter = ("assistant",)
    list_select_related = ("assistant", "run__dataset")
    change_form_template = "training/adapter.html"
    fields = ("assistant", "number", "folder", "created_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("evaluations")

    @admin.display(description="Data")
    def dataset(self, obj: Adapter) -> str:
        return str(obj.run.dataset) if obj.run else "imported"

    @admin.display(description="Verdict")
    def verdict(self, obj: Adapter) -> str:
        verdicts = [e.get_verdict_display() for e in obj.evaluations.all() if e.verdict]
        return verdicts[0] if verdicts else "not evaluated"

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, obj: Adapter) -> str:
        return filesizeformat(obj.size_bytes)

    @admin.display(description="Base")
    def base(self, obj: Adapter) -> str:
        return obj.base_digest[:12]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        adapter = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if isinstance(adapter, Adapter):
            extra |= {
                "adapter": adapter,
                "manifest": adapter.manifest,
                "settings": sorted(adapter.manifest.get("settings", {}).items()),
                "versions": sorted(adapter.manifest.get("versions", {}).items()),
                "evaluations": list(adapter.evaluations.select_related("benchmark")),
            }
        return super().change_view(request, object_id, form_url, extra)

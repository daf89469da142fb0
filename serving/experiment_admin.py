"""Lists of experiments and drift reports; their pages are those of `serving.dashboards`."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.models import Role
from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin
from assistants.work_admin import WorkPageAdmin
from serving.dashboards.drift import drift_page
from serving.dashboards.experiment import experiment_page
from serving.drift.models import DriftReport
from serving.experiments.models import Experiment
from serving.models import Deployment

READERS = (Role.ADMIN.value, Role.REVIEWER.value)


@admin.register(Experiment)
class ExperimentAdmin(ScopedAdmin):
    when_empty = "An adapter meets users step by step from the page of its assistant's deployment."
    view_roles = READERS
    list_display = ("candidate", "assistant", "beside", "stage_label", "share_label", "how", "began")
    list_display_links = ("candidate",)
    list_filter = ("stage", "ending", "assistant")
    list_select_related = ("assistant", "candidate", "control")
    list_before_template = "serving/experiment_list_top.html"
    list_per_page = 50

    @display(description="Beside")
    def beside(self, obj: Experiment) -> str:
        return str(obj.control or "base model")

    @display(
        description="Stage", ordering="stage",
        label={"shadow": "info", "canary": "warning", "ab": "warning", "promoted": "success", "guardrail": "danger",
               "taken_back": "info", "stopped": "info"},
    )  # fmt: skip
    def stage_label(self, obj: Experiment) -> tuple[str, str]:
        return obj.ending or obj.stage, obj.get_ending_display() or obj.get_stage_display()

    @display(description="Share")
    def share_label(self, obj: Experiment) -> str:
        return f"{obj.share:.0%}" if obj.shows_candidate else "–"

    @display(description="Why it ended, or waits")
    def how(self, obj: Experiment) -> str:
        return (obj.reason or obj.notice)[:120]

    @display(description="Started", ordering="started_at")
    def began(self, obj: Experiment) -> SafeString | str:
        return moment(obj.started_at)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, Role.ADMIN).exclude(deployment__experiment__isnull=False)
        return super().changelist_view(request, {**(extra_context or {}), "startable": own.order_by("name")[:50]})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        number = int(object_id) if object_id.isdecimal() and len(object_id) < 19 else 0
        return experiment_page(request, number)


@admin.register(DriftReport)
class DriftReportAdmin(WorkPageAdmin):
    when_empty = "Whether questions have moved from what the live adapter was trained on; made weekly and on demand."
    list_display = ("window", "assistant", "state_label", "verdict_label", "auc", "p", "when")
    list_display_links = ("window",)
    list_filter = ("verdict", "alarm", "assistant")
    list_select_related = ("assistant", "adapter")
    list_before_template = "serving/drift_list_top.html"
    view_roles: ClassVar = READERS

    def get_queryset(self, request: HttpRequest) -> QuerySet[DriftReport]:
        rows: QuerySet[DriftReport] = super().get_queryset(request)
        return rows.defer("now", "before")

    @display(description="Window", ordering="until")
    def window(self, obj: DriftReport) -> str:
        return f"{obj.since:%Y-%m-%d} to {obj.until:%Y-%m-%d}"

    @display(
        description="Verdict",
        label={"same": "success", "drift": "warning", "alarm": "danger", "too_few": "info", "": "info"},
    )
    def verdict_label(self, obj: DriftReport) -> tuple[str, str]:
        if obj.alarm:
            return "alarm", "✗ Alarm"
        return obj.verdict, obj.get_verdict_display() or "–"

    @display(description="AUC")
    def auc(self, obj: DriftReport) -> str:
        return f"{obj.results['auc']:.2f}" if "auc" in obj.results else "–"

    @display(description="p")
    def p(self, obj: DriftReport) -> str:
        return f"{obj.results['p']:.3f}" if "p" in obj.results else "–"

    def cancel(self, work: Any, actor: Any) -> bool:
        return bool(work.request_cancel())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, Role.ADMIN)
        live = Deployment.objects.filter(assistant__in=own, adapter__run__isnull=False).select_related("assistant")
        return super().changelist_view(request, {**(extra_context or {}), "comparable": live[:50]})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        number = int(object_id) if object_id.isdecimal() and len(object_id) < 19 else 0
        return drift_page(request, number)

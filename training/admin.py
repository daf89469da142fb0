"""The training room in the admin. Rows are made by services and read here; nothing is edited by hand."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin
from assistants.work_admin import ADMINS, READERS, WorkAdmin
from training import data_admin, evaluation_admin, views_evaluation, views_run_compare, views_runs
from training.models import Adapter, Evaluation, Run
from training.providers.admin import TrainingProviderAdmin
from training.registry import admin as registry_admin
from training.registry.lineage import lineage_of
from training.retrieval.admin import RetrievalComparisonAdmin, RetrieverTuningAdmin
from training.rules.admin import RetrainingRuleAdmin

__all__ = [
    "AdapterAdmin",
    "EvaluationAdmin",
    "RetrainingRuleAdmin",
    "RetrievalComparisonAdmin",
    "RetrieverTuningAdmin",
    "RunAdmin",
    "TrainingProviderAdmin",
    "data_admin",
    "evaluation_admin",
    "registry_admin",
]

# --- Runs -------------------------------------------------------------------------------------------------------------


@admin.register(Run)
class RunAdmin(WorkAdmin):
    """The list is the admin's; a run's own page is `training.views_runs`."""

    when_empty = "A run trains an adapter on a version of the dataset."
    add_roles = ADMINS
    list_display = (
        "__str__",
        "assistant",
        "dataset",
        "method_name",
        "state_label",
        "how_far",
        "loss",
        "took",
        "seed",
        "created_at",
    )
    list_filter = ("assistant", "state", "method")
    list_select_related = ("assistant", "dataset")
    list_before_template = "training/run_list_top.html"
    actions = ("compare",)
    date_hierarchy: ClassVar = None

    @admin.display(description="Method", ordering="method")
    def method_name(self, obj: Run) -> str:
        return obj.method.upper().replace("+", " → ")

    @admin.action(description="Compare the selected runs (two to four)")
    def compare(self, request: HttpRequest, rows: Any) -> HttpResponse:
        keys = "&".join(f"run={pk}" for pk in rows.order_by("pk").values_list("pk", flat=True)[:4])
        return HttpResponseRedirect(f"{reverse('admin:training_run_compare')}?{keys}")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"any_rows": self.get_queryset(request).exists(), "may_add": self.has_add_permission(request)}
        return super().changelist_view(request, {**own, **(extra_context or {})})

    @admin.display(description="Loss")
    def loss(self, obj: Run) -> str:
        value = obj.progress.get("loss")
        return "" if value is None else f"{value:.3f}"

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("start/", staff(views_runs.start_page), name="training_run_start"),
            path("compare/", staff(views_run_compare.compare_page), name="training_run_compare"),
            path("<int:pk>/events/", staff(views_runs.run_events), name="training_run_events"),
            path("<int:pk>/resume/", staff(views_runs.run_resume), name="training_run_resume"),
            path("<int:pk>/clean/", staff(views_runs.run_clean), name="training_run_clean"),
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
    when_empty = "An adapter comes from a run, or from an import."
    view_roles = READERS
    list_display = ("__str__", "assistant", "dataset", "verdict", "size", "base", "prompt_digest", "made")
    list_filter = ("assistant", "source")
    search_fields = ("assistant__name", "assistant__slug", "base_digest", "prompt_digest", "remote_model")
    search_help_text = "Number, assistant, or a part of a digest"
    list_select_related = ("assistant", "run__dataset", "run__provider", "parent__run__dataset")
    list_before_template = "training/adapter_list_top.html"
    change_form_template = "training/adapter.html"
    fields = ("assistant", "number", "folder", "created_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("evaluations")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """“Adapter 7” and “7” find that one."""
        words = [word for word in search_term.split() if word.lower() != "adapter"]
        numbers = [int(word) for word in words if word.isdecimal() and len(word) < 9]
        rows = queryset.filter(number__in=numbers) if numbers else queryset
        rest = " ".join(word for word in words if not word.isdecimal() or len(word) >= 9)
        return super().get_search_results(request, rows, rest)

    @admin.display(description="Made", ordering="created_at")
    def made(self, obj: Adapter) -> str:
        return moment(obj.created_at)

    @admin.display(description="Data")
    def dataset(self, obj: Adapter) -> str:
        if obj.run is None:
            return obj.get_source_display().lower()
        return f"{obj.run.dataset}{' ● holds erased data: retrain' if obj.erased_rows else ''}"

    @admin.display(description="Verdict")
    def verdict(self, obj: Adapter) -> str:
        verdicts = [e.get_verdict_display() for e in obj.evaluations.all() if e.verdict]
        return verdicts[0] if verdicts else "not evaluated"

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, obj: Adapter) -> str:
        return filesizeformat(obj.size_bytes)

    @admin.display(description="Base")
    def base(self, obj: Adapter) -> str:
        return obj.base_digest[:12] or obj.remote_model

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("import/", staff(registry_admin.import_page), name="training_adapter_import"),
            path("<int:pk>/export/", staff(registry_admin.export_view), name="training_adapter_export"),
            path("<int:pk>/merge/", staff(registry_admin.merge_view), name="training_adapter_merge"),
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"any_rows": self.get_queryset(request).exists(), "may_import": self.may(request, ADMINS, None)}
        return super().changelist_view(request, {**own, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        adapter = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if isinstance(adapter, Adapter):
            extra |= {
                "adapter": adapter,
                "may_evaluate": self.may(request, ADMINS, adapter),
                "manifest": adapter.manifest,
                "lineage": lineage_of(adapter),
                "merges": list(adapter.merges.all()[:5]),
                "remote": adapter.source == Adapter.Source.REMOTE,
                "settings": sorted(adapter.manifest.get("settings", {}).items()),
                "versions": sorted(adapter.manifest.get("versions", {}).items()),
                "evaluations": list(adapter.evaluations.select_related("benchmark")),
            }
        return super().change_view(request, object_id, form_url, extra)


# --- Evaluations ------------------------------------------------------------------------------------------------------


@admin.register(Evaluation)
class EvaluationAdmin(data_admin.TrainingWorkAdmin):
    """Each row leads to its before/after page."""

    when_empty = "Before and after on held-out questions, for each adapter."
    list_display = (
        "before_after",
        "assistant",
        "on",
        "verdict_label",
        "said",
        "state_label",
        "how_far",
        "when",
        "took",
    )
    list_display_links = None
    list_filter = ("verdict", "state", "benchmark", "assistant")
    list_select_related = ("assistant", "adapter", "benchmark")
    list_before_template = "training/evaluation_list_top.html"
    search_fields = ("sentence", "benchmark__name")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("results", "comparison", "gate")

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("<int:pk>/resume/", staff(views_evaluation.resume_view), name="training_evaluation_resume"),
            path("<int:pk>/score/", staff(views_evaluation.score_view), name="training_evaluation_score"),
            path("<int:pk>/judge/", staff(views_evaluation.judge_view), name="training_evaluation_judge"),
        ]
        return [*own, *super().get_urls()]

    @display(description="Before / after", ordering="adapter")
    def before_after(self, evaluation: Evaluation) -> SafeString:
        url = reverse("dashboards:before-after", args=[evaluation.pk])
        return format_html('<a class="font-semibold underline" href="{}">{}</a>', url, evaluation.adapter)

    @display(description="Benchmark", ordering="benchmark")
    def on(self, evaluation: Evaluation) -> str:
        return str(evaluation.benchmark)

    @display(
        description="Verdict", ordering="verdict",
        label={"passed": "success", "not_proven": "info", "worse": "danger"},
    )  # fmt: skip
    def verdict_label(self, evaluation: Evaluation) -> tuple[str, str] | None:
        if not evaluation.verdict:
            return None
        sign = {"passed": "✓", "worse": "✗"}.get(evaluation.verdict, "◌")
        return evaluation.verdict, f"{sign} {evaluation.get_verdict_display()}"

    @display(description="In one sentence")
    def said(self, evaluation: Evaluation) -> SafeString:
        return format_html('<span class="whitespace-normal">{}</span>', evaluation.sentence or "–")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views_evaluation.start_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """An evaluation has one page; cancelling comes back through here."""
        evaluation = self.readable(request, object_id)
        return HttpResponseRedirect(reverse("dashboards:before-after", args=[evaluation.pk]))

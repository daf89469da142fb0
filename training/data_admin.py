"""Benchmarks, syntheses and dataset versions in the admin: lists here, their pages in the views beside."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import assistants_of, has_role
from assistants.models import Role
from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin
from assistants.work_admin import ADMINS, READERS, WorkPageAdmin
from training import (
    recipes_admin,  # noqa: F401 - registers its pages
    views_benchmark,
    views_dataset,
    views_difference,
    views_recipe,
    views_rows,
    views_spot_checks,
    views_synthesis,
)
from training.models import Benchmark, BenchmarkUpload, DatasetVersion, Synthesis
from training.services import cancel


class TrainingWorkAdmin(WorkPageAdmin):
    """Work that `training.services` starts and cancels."""

    add_roles: ClassVar[Collection[str]] = ADMINS

    def cancel(self, work: Any, actor: Any) -> bool:
        return cancel(work=work, actor=actor)

    def own_context(self, request: HttpRequest) -> dict[str, Any]:
        """For what stands above a list: whether there is anything, and who may add to it."""
        rows = self.get_queryset(request)
        return {"any_rows": rows.exists(), "may_add": self.has_add_permission(request)}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {**self.own_context(request), **(extra_context or {})})


# --- Benchmarks -------------------------------------------------------------------------------------------------------


@admin.register(Benchmark)
class BenchmarkAdmin(ScopedAdmin):
    """Frozen held-out questions; read here, made from an uploaded file."""

    view_roles = READERS
    add_roles = ADMINS
    list_display = ("name", "assistant", "n_questions", "content", "evaluations_made", "created")
    list_filter = ("assistant",)
    list_select_related = ("assistant",)
    list_before_template = "training/benchmark_list_top.html"
    search_fields = ("name",)
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Benchmark]:
        rows: QuerySet[Benchmark] = super().get_queryset(request)
        return rows.annotate(n_items=Count("items", distinct=True), n_used=Count("evaluations", distinct=True))

    @display(description="Questions", ordering="n_items")
    def n_questions(self, benchmark: Any) -> int:
        return benchmark.n_items

    @display(description="Content")
    def content(self, benchmark: Benchmark) -> str:
        return benchmark.content_hash[:12]

    @display(description="Evaluations", ordering="n_used")
    def evaluations_made(self, benchmark: Any) -> int:
        return benchmark.n_used

    @display(description="Frozen", ordering="created_at")
    def created(self, benchmark: Benchmark) -> SafeString | str:
        return moment(benchmark.created_at)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *READERS)
        context = {
            "any_rows": Benchmark.objects.filter(assistant__in=own).exists(),
            "may_add": self.has_add_permission(request),
            # What is frozen is listed itself; here is what is on its way, or did not get there.
            "uploads": BenchmarkUpload.objects.filter(assistant__in=own).exclude(state="succeeded")[:3],
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        export = path("<int:pk>/export/", staff(views_benchmark.benchmark_export), name="training_benchmark_export")
        return [export, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views_benchmark.upload_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return views_benchmark.benchmark_page(request, _key(object_id))


@admin.register(BenchmarkUpload)
class BenchmarkUploadAdmin(TrainingWorkAdmin):
    """Benchmarks on their way."""

    add_roles = ()
    list_display = ("__str__", "assistant", "state_label", "how_far", "created_by", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "created_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[BenchmarkUpload]:
        rows: QuerySet[BenchmarkUpload] = super().get_queryset(request)
        return rows.defer("sealed")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        upload = self.readable(request, object_id)
        return views_benchmark.uploaded_page(request, upload, self.panel(request, upload))


# --- Syntheses --------------------------------------------------------------------------------------------------------


@admin.register(Synthesis)
class SynthesisAdmin(TrainingWorkAdmin):
    """Questions written from documents, and what the filters left of them."""

    list_display = ("__str__", "assistant", "state_label", "wanted", "written", "kept", "how_far", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "training/synthesis_list_top.html"

    @display(description="Written")
    def written(self, synthesis: Synthesis) -> Any:
        return synthesis.funnel.get("written", "–")

    @display(description="Kept")
    def kept(self, synthesis: Synthesis) -> Any:
        return synthesis.funnel.get("kept", "–")

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("checks/", staff(views_spot_checks.checks_page), name="training_synthesis_checks"),
            path("<int:pk>/check/", staff(views_spot_checks.check_page), name="training_synthesis_check"),
            path("<int:pk>/sample/", staff(views_spot_checks.draw_page), name="training_synthesis_sample"),
            path("<int:pk>/go-on/", staff(views_synthesis.synthesis_go_on), name="training_synthesis_go_on"),
            path("<int:pk>/export/", staff(views_synthesis.synthesis_export), name="training_synthesis_export"),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views_synthesis.start_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        synthesis = self.readable(request, object_id)
        return views_synthesis.synthesis_page(request, synthesis, self.panel(request, synthesis))


# --- Datasets ---------------------------------------------------------------------------------------------------------


@admin.register(DatasetVersion)
class DatasetAdmin(TrainingWorkAdmin):
    """Frozen training sets."""

    when_empty = "A version is built from a recipe: labels, written questions and imported sets."
    list_display = ("__str__", "assistant", "state_label", "rows", "mix_text", "content", "how_far", "when", "train")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "leak_report")
    list_before_template = "training/dataset_list_top.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[DatasetVersion]:
        rows: QuerySet[DatasetVersion] = super().get_queryset(request)
        trains = Q(assistant__in=assistants_of(request.user, *ADMINS))
        return rows.defer("blocked", "documents").annotate(may_train=trains)

    @admin.display(description="Mix")
    def mix_text(self, obj: DatasetVersion) -> str:
        mix = " · ".join(f"{origin} {sum(kinds.values())}" for origin, kinds in sorted(obj.mix.items()))
        return f"{mix} · {obj.erased_rows} erased" if obj.erased_rows else mix

    @admin.display(description="Content")
    def content(self, obj: DatasetVersion) -> str:
        return obj.content_hash[:12]

    @admin.display(description="")
    def train(self, obj: DatasetVersion) -> str:
        if obj.why_unusable:
            return "blocked" if obj.leak_report is not None and obj.leak_report.blocks else ""
        if not getattr(obj, "may_train", False):
            return ""
        return format_html('<a href="{}?dataset={}">Train</a>', reverse("admin:training_run_start"), obj.pk)

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        name = "training_datasetversion"
        own = [
            path("<int:pk>/export/", staff(views_rows.dataset_export), name=f"{name}_export"),
            path("<int:pk>/recipe/", staff(views_recipe.recipe_download), name=f"{name}_recipe"),
            path("<int:pk>/exclude/", staff(views_rows.rows_exclude), name=f"{name}_exclude"),
            path("<int:pk>/difference/", staff(views_difference.difference_page), name=f"{name}_difference"),
            path("<int:pk>/rows/<int:position>/", staff(views_rows.row_page), name=f"{name}_row"),
            path("of-turn/<uuid:key>/", staff(views_rows.rows_of_turn), name=f"{name}_turn"),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views_recipe.build_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        dataset = self.readable(request, object_id)
        panel = self.panel(request, dataset)
        may_train = has_role(request.user, dataset.assistant, Role.ADMIN.value)
        return views_dataset.dataset_page(request, dataset, panel, may_train=may_train)


def _key(object_id: str) -> int:
    if not object_id.isdecimal() or len(object_id) > 18:
        raise Http404("There is no such page.")
    return int(object_id)

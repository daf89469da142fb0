"""Comparisons of retrieval configurations in the admin; pages in `training.retrieval.views`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from unfold.decorators import display

from training.data_admin import TrainingWorkAdmin
from training.models import RetrievalComparison, RetrieverTuning
from training.retrieval import tuning_views, views
from training.retrieval.tuning import sentence
from training.signs import signed


@admin.register(RetrievalComparison)
class RetrievalComparisonAdmin(TrainingWorkAdmin):
    """Two versions on the same questions."""

    list_display = ("__str__", "assistant", "benchmark", "versions", "gain", "state_label", "how_far", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "benchmark", "first", "second", "created_by")
    list_before_template = "training/retrieval_list_top.html"

    @display(description="Versions")
    def versions(self, row: RetrievalComparison) -> str:
        return f"{row.first} · {row.second}"

    @display(description="nDCG@10")
    def gain(self, row: RetrievalComparison) -> str:
        if not row.result:
            return ""
        change = row.result["tests"]["ndcg@10"]["difference"]
        return f"{signed(change['value'], 3)} ({signed(change['low'], 3)} … {signed(change['high'], 3)})"

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("threshold/", staff(views.threshold_page), name="training_retrieval_threshold"),
            path("threshold/apply/", staff(views.apply_threshold), name="training_retrieval_threshold_apply"),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views.start_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        comparison = self.readable(request, object_id)
        return views.comparison_page(request, comparison, self.panel(request, comparison))


@admin.register(RetrieverTuning)
class RetrieverTuningAdmin(TrainingWorkAdmin):
    """Learning from labels which passages are right."""

    list_display = ("__str__", "assistant", "outcome", "configuration", "state_label", "how_far", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "configuration", "created_by")
    list_before_template = "training/tuning_list_top.html"

    @display(description="Held-out questions")
    def outcome(self, row: RetrieverTuning) -> str:
        return sentence(row)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return tuning_views.start_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        tuning = self.readable(request, object_id)
        return tuning_views.tuning_page(request, tuning, self.panel(request, tuning))

"""Previews of recipes and imported sets in the admin: lists here, their pages in the views beside."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path

from assistants.access import has_role
from assistants.models import Role
from assistants.work_admin import ADMINS, WorkPageAdmin
from training import views_curated, views_recipe
from training.models import CuratedSet, DatasetPreview
from training.services import cancel


class _Work(WorkPageAdmin):
    def cancel(self, work: Any, actor: Any) -> bool:
        return cancel(work=work, actor=actor)


@admin.register(DatasetPreview)
class DatasetPreviewAdmin(_Work):
    """What recipes would give."""

    list_display = ("__str__", "assistant", "state_label", "how_far", "created_by", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "created_by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[DatasetPreview]:
        rows: QuerySet[DatasetPreview] = super().get_queryset(request)
        return rows.select_related("benchmark", "synthesis")

    def get_urls(self) -> list[URLPattern]:
        build = path(
            "<int:pk>/build/",
            self.admin_site.admin_view(views_recipe.preview_build),
            name="training_datasetpreview_build",
        )
        return [build, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        preview = self.readable(request, object_id)
        may_build = has_role(request.user, preview.assistant, Role.ADMIN.value)
        return views_recipe.preview_page(request, preview, self.panel(request, preview), may_build=may_build)


@admin.register(CuratedSet)
class CuratedSetAdmin(_Work):
    """Examples from files."""

    add_roles: ClassVar[Collection[str]] = ADMINS
    list_display = ("name", "assistant", "state_label", "rows", "refused", "masked", "how_far", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant",)
    list_before_template = "training/curated_list_top.html"
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CuratedSet]:
        rows: QuerySet[CuratedSet] = super().get_queryset(request)
        return rows.defer("sealed", "problems")

    def get_urls(self) -> list[URLPattern]:
        gone = path(
            "<int:pk>/remove/", self.admin_site.admin_view(views_curated.set_delete), name="training_curatedset_remove"
        )
        return [gone, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = {"any_rows": self.get_queryset(request).exists(), "may_add": self.has_add_permission(request)}
        return super().changelist_view(request, {**own, **(extra_context or {})})

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return views_curated.import_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        curated = self.readable(request, object_id)
        return views_curated.set_page(request, curated, self.panel(request, curated))

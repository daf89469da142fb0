"""Versions of retrieval settings, self-tests and vector indexes: the lists; their pages are `knowledge.retrieval_views`
and `knowledge.index_views`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.presenting import excerpt, moment
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit
from assistants.work_admin import ADMINS, READERS, WorkPageAdmin
from knowledge import index_views, retrieval_views
from knowledge.models import RetrievalCheck, RetrievalConfiguration, VectorIndex


@admin.register(RetrievalConfiguration)
class RetrievalConfigurationAdmin(ScopedAdmin):
    """How assistants search: every version that ever counted, and those that wait to be tried."""

    view_roles = READERS
    add_roles = ADMINS
    list_display = ("named", "assistant", "counts", "weights", "passages", "digest", "created")
    list_display_links = ("named",)
    list_filter = ("assistant",)
    list_select_related = ("assistant",)
    list_before_template = "knowledge/configuration_list_top.html"
    list_per_page = 50
    search_fields = ("name", "note", "digest")
    search_help_text = "Words of the name or the note, or the digest that stands on a turn"
    show_full_result_count = False

    @display(description="Version", ordering="number")
    def named(self, row: RetrievalConfiguration) -> str:
        return excerpt(str(row), 80)

    @display(description="Counts", label={"active": "success", "": "info"})
    def counts(self, row: RetrievalConfiguration) -> tuple[str, str] | str:
        return ("active", "✓ active") if row.digest == retrieval_views.active_digest(row.assistant) else ""

    @display(description="Words / vectors / sentences")
    def weights(self, row: RetrievalConfiguration) -> str:
        return " / ".join(str(row.settings.get(name, "–")) for name in ("words", "vectors", "sentences"))

    @display(description="Passages")
    def passages(self, row: RetrievalConfiguration) -> str:
        return str(row.settings.get("k", "–"))

    @display(description="Saved", ordering="created_at")
    def created(self, row: RetrievalConfiguration) -> SafeString | str:
        return moment(row.created_at)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *READERS)
        context = {
            "any_rows": RetrievalConfiguration.objects.filter(assistant__in=own).exists(),
            "may_add": self.has_add_permission(request),
            "checks": RetrievalCheck.objects.filter(assistant__in=own).select_related("assistant")[:3],
            "checked_assistants": assistants_of(request.user, *ADMINS),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("lab/", staff(retrieval_views.lab_page), name="knowledge_retrieval_lab"),
            path("check/", staff(retrieval_views.check), name="knowledge_retrieval_check"),
            path("<int:pk>/activate/", staff(retrieval_views.make_active), name="knowledge_retrieval_activate"),
            path(
                "digest/<slug:slug>/<slug:digest>/", staff(retrieval_views.by_digest), name="knowledge_retrieval_digest"
            ),
        ]
        return [*own, *super().get_urls()]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return retrieval_views.new_page(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return retrieval_views.configuration_page(request, object_id)


@admin.register(RetrievalCheck)
class RetrievalCheckAdmin(WorkPageAdmin):
    """Self-tests and what they found."""

    list_display = ("__str__", "assistant", "recall", "state_label", "how_far", "created_by", "when", "took")
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "created_by")

    @display(description="Recall@10")
    def recall(self, row: RetrievalCheck) -> str:
        return f"{row.result['recall']:.3f}" if row.result else ""

    def cancel(self, work: RetrievalCheck, actor: Any) -> bool:
        asked = work.request_cancel()
        if asked:
            audit(assistant=work.assistant, actor=actor, action="retrieval.check_cancelled", target=str(work))
        return asked

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = self.readable(request, object_id)
        return retrieval_views.check_page(request, row, self.panel(request, row))


@admin.register(VectorIndex)
class VectorIndexAdmin(WorkPageAdmin):
    """What was made of them, and how well they are searched."""

    list_display = (
        "__str__",
        "assistant",
        "chunks",
        "found",
        "width",
        "state_label",
        "how_far",
        "created_by",
        "when",
        "took",
    )
    list_filter = ("state", "assistant")
    list_select_related = ("assistant", "created_by")
    list_before_template = "knowledge/index_list_top.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {**index_views.about(request), **(extra_context or {})})

    @display(description="Recall@10", ordering="recall")
    def found(self, row: VectorIndex) -> str:
        return "" if row.recall is None else f"{row.recall:.3f}"

    @display(description="ef_search", ordering="ef_search")
    def width(self, row: VectorIndex) -> str:
        return str(row.ef_search or "")

    def cancel(self, work: VectorIndex, actor: Any) -> bool:
        asked = work.request_cancel()
        if asked:
            audit(assistant=work.assistant, actor=actor, action="retrieval.index_cancelled", target=str(work))
        return asked

    def get_urls(self) -> list[URLPattern]:
        own = path("rebuild/", self.admin_site.admin_view(index_views.rebuild), name="knowledge_vectorindex_rebuild")
        return [own, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row = self.readable(request, object_id)
        return index_views.index_page(request, row, self.panel(request, row))

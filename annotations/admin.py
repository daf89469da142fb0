"""Queues, annotations and resolutions in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from annotations.agreement import agreement_of
from annotations.export import export_lines, opened
from annotations.fill_views import fill_page
from annotations.guideline import render_guideline
from annotations.models import Annotation, Queue, Resolution
from annotations.progress import people_progress, queue_progress
from assistants.access import has_role
from assistants.models import Assistant, Role
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit
from capture.export_guard import ExportBlocked

ADMINS = (Role.ADMIN.value,)
SETTLERS = (Role.REVIEWER.value, Role.ADMIN.value)
VERDICT_COLOURS = {"good": "success", "bad": "danger"}


@admin.register(Queue)
class QueueAdmin(ScopedAdmin):
    """One row per queue; its page shows progress, people and agreement above the settings."""

    add_roles = ADMINS
    change_roles = ADMINS
    delete_roles = ADMINS
    list_display = ("name", "assistant", "progress", "disagreements", "state", "work")
    list_filter = ("assistant", "paused")
    list_select_related = ("assistant",)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("assistant", "name", "guideline", "paused")}),
        ("Labels", {"fields": ("labels_needed", "overlap_share")}),
    )
    change_form_outer_before_template = "annotations/queue_panel.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Queue]:
        rows = super().get_queryset(request)
        done = Q(items__done=True)
        return rows.annotate(
            n_items=Count("items"),
            n_done=Count("items", filter=done),
            n_split=Count("items", filter=done & Q(items__turn__resolution=None)),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("assistant",) if obj is not None else ()  # its items belong to that assistant

    @display(description="Done")
    def progress(self, queue: Any) -> str:
        return f"{queue.n_done} of {queue.n_items}" if queue.n_items else "empty"

    @display(description="Disagreements")
    def disagreements(self, queue: Any) -> str | SafeString:
        if not queue.n_split:
            return "0"
        return format_html(
            '<a class="underline" href="{}">{} to settle</a>',
            reverse("annotations:disagreements", args=[queue.pk]),
            queue.n_split,
        )

    @display(description="State", label={"open": "success", "paused": "warning", "done": "info"})
    def state(self, queue: Any) -> str:
        if queue.paused:
            return "paused"
        return "done" if queue.n_items and queue.n_done == queue.n_items else "open"

    @display(description="Work")
    def work(self, queue: Any) -> SafeString:
        return format_html(
            '<a class="bg-primary-600 font-medium px-3 py-1.5 rounded-default text-white" href="{}">Label</a>',
            reverse("annotations:label", args=[queue.pk]),
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        queue = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if queue is not None:
            extra |= {
                "queue": queue,
                "progress": queue_progress(queue),
                "people": people_progress(queue),
                "agreement": agreement_of(queue),
                "guideline": render_guideline(queue.guideline),
                "may_settle": has_role(request.user, queue.assistant, *SETTLERS),
                "may_fill": self.has_change_permission(request, queue),
            }
        return super().change_view(request, object_id, form_url, extra)

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        name = "queue.changed" if change else "queue.created"
        audit(
            assistant=obj.assistant, actor=request.user, action=name, target=str(obj),  # type: ignore[arg-type]
            details={"fields": list(form.changed_data)},
        )  # fmt: skip

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("<int:queue_id>/add/", self.admin_site.admin_view(self.fill), name="annotations_queue_fill"),
            path("<int:queue_id>/export/", self.admin_site.admin_view(self.export), name="annotations_queue_export"),
        ]
        return [*own, *super().get_urls()]

    def fill(self, request: HttpRequest, queue_id: int) -> HttpResponse:
        """Fills the queue: count first, then add."""
        queue = get_object_or_404(Queue.objects.select_related("assistant"), pk=queue_id)
        if not self.has_change_permission(request, queue):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "title": f"Add turns to {queue.name}", "opts": self.opts}
        return fill_page(request, queue, context)

    def export(self, request: HttpRequest, queue_id: int) -> HttpResponseBase:
        """All labels of the queue, also replaced ones (`counts` says which count)."""
        queue = get_object_or_404(Queue.objects.select_related("assistant"), pk=queue_id)
        if not has_role(request.user, queue.assistant, *SETTLERS):
            raise PermissionDenied
        return export_response(request, Annotation.objects.filter(queue=queue), f"queue-{queue.pk}", queue)


class ReadOnlyAdmin(ScopedAdmin):
    """Rows that only services write."""

    assistant_path = "turn__assistant"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("turn__embedding")


@admin.register(Annotation)
class AnnotationAdmin(ReadOnlyAdmin):
    view_roles = SETTLERS
    list_display = ("question", "verdict_shown", "why", "corrected", "annotator", "queue", "created_at", "status")
    list_filter = ("verdict", "queue", "annotator", ("created_at", admin.DateFieldListFilter))
    list_select_related = ("turn", "annotator", "queue")
    search_fields = ("turn__question", "turn__client_id", "correction", "note", "annotator__username")
    date_hierarchy = "created_at"
    actions = ("export_selected",)
    fields = (
        "question", "logged", "verdict", "why", "correction", "note", "annotator", "queue", "seconds", "created_at",
        "status",
    )  # fmt: skip

    @display(description="Question")
    def question(self, label: Annotation) -> str:
        return label.turn.question[:90]

    @display(description="Logged answer")
    def logged(self, label: Annotation) -> str:
        return label.turn.response

    @display(description="Verdict", label=VERDICT_COLOURS, ordering="verdict")
    def verdict_shown(self, label: Annotation) -> tuple[str, str]:
        return label.verdict, label.get_verdict_display()

    @display(description="Reasons")
    def why(self, label: Annotation) -> str:
        return " · ".join(label.reason_labels) or "–"

    @display(description="Corrected")
    def corrected(self, label: Annotation) -> str:
        return "yes" if label.correction else "–"

    @display(description="Status", label={"counts": "success", "replaced": "warning", "taken back": "warning"})
    def status(self, label: Annotation) -> str:
        if label.withdrawn_at is not None:
            return "taken back"
        return "counts" if label.replaced_by_id is None else "replaced"

    @admin.action(description="Export as JSON lines")
    def export_selected(self, request: HttpRequest, rows: QuerySet[Annotation]) -> HttpResponseBase:
        return export_response(request, rows, "annotations", None)


@admin.register(Resolution)
class ResolutionAdmin(ReadOnlyAdmin):
    list_display = ("question", "verdict_shown", "why", "how", "labels", "relevant", "resolved_by", "resolved_at")
    list_filter = ("verdict", "how", ("resolved_at", admin.DateFieldListFilter))
    list_select_related = ("turn", "resolved_by")
    search_fields = ("turn__question", "turn__client_id", "response")
    fields = (
        "question", "logged", "verdict", "why", "response", "relevant", "how", "labels", "resolved_by", "resolved_at",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Resolution]:
        return super().get_queryset(request).annotate(n_labels=Count("annotations"))

    @display(description="Question")
    def question(self, resolution: Resolution) -> str:
        return resolution.turn.question[:90]

    @display(description="Logged answer")
    def logged(self, resolution: Resolution) -> str:
        return resolution.turn.response

    @display(description="Verdict", label=VERDICT_COLOURS, ordering="verdict")
    def verdict_shown(self, resolution: Resolution) -> tuple[str, str]:
        return resolution.verdict, resolution.get_verdict_display()

    @display(description="Reasons")
    def why(self, resolution: Resolution) -> str:
        return " · ".join(resolution.reason_labels) or "–"

    @display(description="Relevant passages")
    def relevant(self, resolution: Resolution) -> str:
        return ", ".join(f"[{rank}]" for rank in resolution.relevant_ranks) or "–"

    @display(description="Labels that counted")
    def labels(self, resolution: Any) -> int:
        return resolution.n_labels


def export_response(
    request: HttpRequest, rows: QuerySet[Annotation], name: str, queue: Queue | None
) -> HttpResponseBase:
    """A download of labels, noted in the audit trail of each assistant that it touches; back to the page, with the
    reason, when the leak audit objects."""
    try:
        lines = opened(export_lines(rows))
    except ExportBlocked as blocked:
        messages.error(request, str(blocked))
        back = reverse("admin:annotations_queue_change", args=[queue.pk]) if queue else request.get_full_path()
        return HttpResponseRedirect(back)
    counts = rows.order_by().values_list("turn__assistant").annotate(n=Count("pk"))
    by_assistant = Assistant.objects.in_bulk([key for key, _ in counts])
    for key, n in counts:
        audit(
            assistant=by_assistant[key], actor=request.user, action="annotations.exported",  # type: ignore[arg-type]
            target=str(queue or ""), details={"labels": n},
        )  # fmt: skip
    response = StreamingHttpResponse(lines, content_type="application/x-ndjson; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.jsonl"'
    return response

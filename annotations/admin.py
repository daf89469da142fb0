"""Queues, annotations and resolutions in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import BooleanField, Count, ExpressionWrapper, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import display

from annotations.comparing.admin import ComparisonRoundAdmin
from annotations.export_views import export_response
from annotations.fill_views import fill_page
from annotations.guideline import render_guideline
from annotations.machine.admin import MachineLabelAdmin
from annotations.machine.agreement import machine_agreement
from annotations.machine.jobs import enqueue_recount
from annotations.missed_admin import MissedPassageAdmin
from annotations.models import Annotation, Queue, QueueItem, Resolution
from annotations.people import WORKERS, visible_to, with_share, workers_of
from annotations.progress import labelled_today_by, people_progress, queue_progress
from annotations.queue_form import form_for
from annotations.suggesting import asked_of
from annotations.trust.counting import COUNTS, Standing, standing, standings
from annotations.trust.of_queue import agreement_of
from annotations.trust.rows import MAX_LABELS
from assistants.access import assistants_of, has_role
from assistants.models import Role
from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit
from assistants.viewing import AuditedViews
from assistants.when import when

__all__ = [
    "AnnotationAdmin",
    "ComparisonRoundAdmin",
    "MachineLabelAdmin",
    "MissedPassageAdmin",
    "QueueAdmin",
    "ResolutionAdmin",
]

ADMINS = (Role.ADMIN.value,)
SETTLERS = (Role.REVIEWER.value, Role.ADMIN.value)
OVERSEERS = (*SETTLERS, Role.PRIVACY.value)
VERDICT_COLOURS = {"good": "success", "bad": "danger"}


@admin.register(Queue)
class QueueAdmin(AuditedViews, ScopedAdmin):
    """One row per queue; its page shows progress, people and agreement above the settings."""

    when_empty = "A queue gives turns to people who label them."
    viewed_as = "queue"
    add_roles = ADMINS
    change_roles = ADMINS
    delete_roles = ADMINS
    list_display = ("name", "assistant", "progress", "disagreements", "state", "today", "work")
    list_filter = ("assistant", "paused")
    list_select_related = ("assistant",)
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("assistant", "name", "guideline", "paused")}),
        ("People", {"fields": ("people", "daily_goal")}),
        ("Labels", {"fields": ("labels_needed", "overlap_share", "gold_share", "machines_count")}),
        ("Suggestions", {"fields": ("show_suggestions", "ask_live")}),
    )
    change_form_outer_before_template = "annotations/queue_panel.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Queue]:
        user: Any = request.user
        rows = with_share(visible_to(super().get_queryset(request), user), user)
        settles = Q(assistant__in=assistants_of(user, *SETTLERS))
        return rows.annotate(
            n_items=_in_queue(QueueItem.objects.all()),
            n_done=_in_queue(QueueItem.objects.filter(done=True)),
            n_split=_in_queue(QueueItem.objects.split()),
            n_today=labelled_today_by(user),
            may_settle=ExpressionWrapper(settles, output_field=BooleanField()),
        )

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        allowed = super().has_view_permission(request, obj)
        if not allowed or not isinstance(obj, Queue):
            return allowed
        return visible_to(Queue.objects.filter(pk=obj.pk), request.user).exists()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if self.has_change_permission(request, obj) if change else self.has_add_permission(request):
            kwargs["form"] = form_for(request.user)  # type: ignore[arg-type]
        return super().get_form(request, obj, change, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("assistant",) if obj is not None else ()  # its items belong to that assistant

    @display(description="Done")
    def progress(self, queue: Any) -> str:
        return f"{queue.n_done} of {queue.n_items}" if queue.n_items else "empty"

    @display(description="Disagreements")
    def disagreements(self, queue: Any) -> str | SafeString:
        if not queue.n_split:
            return "0"
        if not queue.may_settle:
            return f"{queue.n_split:,} to settle"
        return format_html(
            '<a class="underline" href="{}">{} to settle</a>',
            reverse("annotations:disagreements", args=[queue.pk]),
            f"{queue.n_split:,}",
        )

    @display(description="State", label={"open": "success", "paused": "warning", "labelled": "warning", "done": "info"})
    def state(self, queue: Any) -> str | tuple[str, str]:
        """Done is only what nobody has to do anything about: disagreements wait for a reviewer."""
        if queue.paused:
            return "paused"
        if not queue.n_items or queue.n_done < queue.n_items:
            return "open"
        return ("labelled", f"labelled, {queue.n_split:,} to settle") if queue.n_split else "done"

    @display(description="You today")
    def today(self, queue: Any) -> str:
        return f"{queue.n_today} of {queue.daily_goal}" if queue.daily_goal else str(queue.n_today)

    @display(description="Work")
    def work(self, queue: Any) -> str | SafeString:
        if not queue.for_them:
            return "for others"
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
            people = people_progress(queue)
            extra |= {
                "queue": queue,
                "progress": queue_progress(queue),
                "people": people,
                "agreement": agreement_of(queue),
                "machines": machine_agreement(queue),
                "asked": asked_of(queue),
                "measured": MAX_LABELS,
                "labels": sum(person.labels for person in people),
                "guideline": render_guideline(queue.guideline),
                "may_settle": has_role(request.user, queue.assistant, *SETTLERS),
                "may_fill": self.has_change_permission(request, queue),
                "may_label": queue.for_them and has_role(request.user, queue.assistant, *WORKERS),
                "queue_people": any(person.assigned for person in people),
                "workers": workers_of(queue.assistant),
            }
        return super().change_view(request, object_id, form_url, extra)

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        name = "queue.changed" if change else "queue.created"
        audit(
            assistant=obj.assistant, actor=request.user, action=name, target=str(obj),  # type: ignore[arg-type]
            details={"fields": list(form.changed_data)},
        )  # fmt: skip
        if change and "machines_count" in form.changed_data:
            enqueue_recount(obj.pk)

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
        back = reverse("admin:annotations_queue_change", args=[queue.pk])
        labels = Annotation.objects.filter(queue=queue)
        return export_response(request, labels, name=f"queue-{queue.pk}", target=str(queue), back=back)


class ReadOnlyAdmin(AuditedViews, ScopedAdmin):
    """Rows that only services write."""

    assistant_path = "turn__assistant"
    ordering = ("-pk",)  # as they were written: by any other column all of them, with their turns, are sorted first
    show_full_result_count = False
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("turn__embedding", "turn__words")


@admin.register(Annotation)
class AnnotationAdmin(ReadOnlyAdmin):
    when_empty = "Every label that a person gives is listed here."
    viewed_as = "annotation"
    view_roles = SETTLERS
    list_display = ("question", "verdict_shown", "why", "corrected", "annotator", "queue", "given", "status")
    list_filter = ("verdict", "queue", "annotator", when("created_at", "given"))
    list_select_related = ("turn", "annotator", "queue")
    search_fields = ("turn__question", "turn__client_id", "correction", "note", "annotator__username")
    actions = ("export_selected",)
    fields = (
        "question", "logged", "verdict", "why", "correction", "note", "who", "queue", "seconds",
        "suggested", "given", "status", "standing",
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

    @display(description="Annotator")
    def who(self, label: Annotation) -> str:
        """A name and no link: accounts are for administrators of the site."""
        return label.annotator.get_username()

    @display(description="Given", ordering="created_at")
    def given(self, label: Annotation) -> SafeString | str:
        return moment(label.created_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Django looks at `list_select_related` only where nothing else is joined.
        rows = super().get_queryset(request).select_related("turn__resolution", "annotator", "queue")
        return rows.prefetch_related("resolutions")

    @display(description="Status", label={COUNTS: "success", "waits": "info"})
    def status(self, label: Annotation) -> str:
        return _standing(label).state

    @display(description="Why")
    def standing(self, label: Annotation) -> str:
        return _standing(label).why

    @admin.action(description="Export as JSON lines")
    def export_selected(self, request: HttpRequest, rows: QuerySet[Annotation]) -> HttpResponseBase:
        return export_response(request, rows, name="annotations", target="", back=request.get_full_path())


@admin.register(Resolution)
class ResolutionAdmin(ReadOnlyAdmin):
    when_empty = "What labels of one turn come to."
    viewed_as = "resolution"
    view_roles = OVERSEERS
    list_display = ("question", "verdict_shown", "why", "how", "labels", "relevant", "resolved_by", "settled")
    list_filter = ("verdict", "how", ("resolved_at", admin.DateFieldListFilter))
    list_select_related = ("turn", "resolved_by")
    search_fields = ("turn__question", "turn__client_id", "response")
    fields = (
        "question", "logged", "verdict", "why", "response", "relevant", "how", "labels", "who", "settled_by",
        "settled",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Resolution]:
        # For the rows of the page alone: joins would count the labels of every verdict first.
        return (
            super()
            .get_queryset(request)
            .annotate(
                n_labels=_how_many(Resolution.annotations.through),
                n_machines=_how_many(Resolution.machine_labels.through),
            )
        )

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

    @display(description="Every label on the turn")
    def who(self, resolution: Resolution) -> SafeString:
        rows = (
            (label.annotator.get_username(), label.get_verdict_display(), found.state, found.why)
            for label, found in standings(resolution)
        )
        return format_html_join(mark_safe("<br>"), "{}: {} · {} ({})", rows) or mark_safe("–")

    @display(description="Settled by")
    def settled_by(self, resolution: Resolution) -> str:
        return resolution.resolved_by.get_username() if resolution.resolved_by else "–"

    @display(description="Settled", ordering="resolved_at")
    def settled(self, resolution: Resolution) -> SafeString | str:
        return moment(resolution.resolved_at)

    @display(description="Labels that counted")
    def labels(self, resolution: Any) -> str:
        machines = f" + {resolution.n_machines} of machines" if resolution.n_machines else ""
        return f"{resolution.n_labels}{machines}"


def _in_queue(items: QuerySet[QueueItem]) -> Coalesce:
    """How many of these a queue holds, without those whose answer is known: they measure people."""
    rows = items.filter(queue=OuterRef("pk"), gold=None).order_by().values("queue")
    return Coalesce(Subquery(rows.annotate(n=Count("pk")).values("n")), 0)


def _how_many(through: Any) -> Coalesce:
    rows = through.objects.filter(resolution=OuterRef("pk")).order_by().values("resolution")
    return Coalesce(Subquery(rows.annotate(n=Count("pk")).values("n")), 0)


def _standing(label: Annotation) -> Standing:
    """Without a query for rows of `AnnotationAdmin.get_queryset`."""
    counted = {label.pk} if label.resolutions.all() else set()
    return standing(label, getattr(label.turn, "resolution", None), counted)

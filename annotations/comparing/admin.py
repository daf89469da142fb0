"""Comparisons in the admin: who is how far, what came out, and the exports. They are drawn on an evaluation's page."""

from __future__ import annotations

import itertools
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import ModelMultipleChoiceField
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from annotations.comparing.blindness import WITHHELD, still_judging
from annotations.comparing.models import ComparisonChoice, ComparisonPair, ComparisonRound
from annotations.comparing.preferences import choice_lines, preference_lines
from annotations.comparing.results import judges_of, results_of
from annotations.comparing.services import JUDGES, SETTLERS, may_judge
from assistants.access import assistants_of, has_role
from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit
from assistants.viewing import AuditedViews
from capture.export_guard import ExportBlocked
from capture.streaming import streamed

ADMINS = (Role.ADMIN.value,)


@admin.register(ComparisonRound)
class ComparisonRoundAdmin(AuditedViews, ScopedAdmin):
    viewed_as = "comparison"
    view_roles = tuple(role.value for role in JUDGES)
    change_roles = ADMINS
    delete_roles = ADMINS
    list_display = ("name", "assistant", "origin", "mine", "choices", "state", "work")
    list_filter = ("assistant", "closed")
    list_select_related = ("assistant",)
    search_fields = ("name",)
    fields = ("name", "people", "closed")
    change_form_outer_before_template = "annotations/comparison_panel.html"
    list_before_template = "annotations/comparison_list_top.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ComparisonRound]:
        """Annotators see the ones that they are asked to judge."""
        rows = super().get_queryset(request)
        user = cast("User", request.user)
        if not user.is_superuser:
            settles = assistants_of(user, *SETTLERS)
            named = ComparisonRound.people.through.objects.filter(user=user).values("comparisonround")
            rows = rows.filter(Q(assistant__in=settles) | Q(pk__in=named))
        made = ComparisonChoice.objects.current().filter(pair__round=OuterRef("pk"))
        pairs = ComparisonPair.objects.filter(round=OuterRef("pk"))
        people = ComparisonRound.people.through.objects.filter(comparisonround=OuterRef("pk"))
        return rows.annotate(
            has_names=Exists(people),
            is_named=Exists(people.filter(user=user)),
            n_pairs=_number(pairs, "round"),
            n_choices=_number(made, "pair__round"),
            n_mine=_number(made.filter(person=user), "pair__round"),
        ).annotate(n_left=F("n_pairs") - F("n_mine"))

    @display(description="From")
    def origin(self, opened: ComparisonRound) -> str:
        return f"{opened.source} {opened.source_id}"

    @display(description="Mine")
    def mine(self, opened: Any) -> str:
        return f"{opened.n_mine} of {opened.n_pairs}"

    @display(description="Choices")
    def choices(self, opened: Any) -> int:
        return int(opened.n_choices)

    @display(description="State", label={"open": "success", "closed": "info"})
    def state(self, opened: ComparisonRound) -> str:
        return "closed" if opened.closed else "open"

    @display(description="Work")
    def work(self, opened: Any) -> str | SafeString:
        if opened.closed or not opened.n_left:
            return "–"
        if opened.has_names and not opened.is_named:
            return "for others"
        return format_html(
            '<a class="bg-primary-600 font-medium px-3 py-1.5 rounded-default text-white" href="{}">Compare</a>',
            reverse("annotations:compare", args=[opened.pk]),
        )

    def formfield_for_manytomany(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> ModelMultipleChoiceField[Any] | None:
        if db_field.name == "people":
            own = assistants_of(request.user, *ADMINS)
            roles = {"memberships__assistant__in": own, "memberships__role__in": JUDGES}
            kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
            kwargs["queryset"] = User.objects.filter(**roles).distinct().order_by("username")
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        opened = self.get_object(request, object_id)
        extra = dict(extra_context or {})
        if opened is not None:
            user = cast("User", request.user)
            settles = has_role(user, opened.assistant, *SETTLERS)
            withheld = settles and bool(still_judging(user, [opened]))
            shows = settles and not withheld
            extra |= {
                "opened": opened,
                "result": results_of([opened])[0] if shows else None,
                "withheld": WITHHELD if withheld else "",
                "judges": judges_of(opened),
                "may_judge": may_judge(user, opened) and not opened.closed,
                "preferred": ComparisonPair.objects.filter(round=opened).preferred().count() if shows else 0,
            }
        return super().change_view(request, object_id, form_url, extra)

    def save_model(self, request: HttpRequest, obj: ComparisonRound, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        audit(
            assistant=obj.assistant, actor=request.user, action="comparison.changed", target=str(obj),  # type: ignore[arg-type]
            details={"fields": list(form.changed_data)},
        )  # fmt: skip

    def get_urls(self) -> list[URLPattern]:
        export = path(
            "<int:round_id>/export/<slug:what>/",
            self.admin_site.admin_view(self.export),
            name="annotations_comparisonround_export",
        )
        return [export, *super().get_urls()]

    def export(self, request: HttpRequest, round_id: int, what: str) -> HttpResponseBase:
        """``what``: preferences (chosen and rejected, for DPO), else every choice."""
        opened = get_object_or_404(ComparisonRound.objects.select_related("assistant"), pk=round_id)
        if not has_role(request.user, opened.assistant, *SETTLERS):
            raise PermissionDenied
        back = reverse("admin:annotations_comparisonround_change", args=[round_id])
        if still_judging(cast("User", request.user), [opened]):
            messages.error(request, WITHHELD)
            return HttpResponseRedirect(back)
        lines = preference_lines(opened) if what == "preferences" else choice_lines(opened)
        try:
            first = list(itertools.islice(lines, 1))  # what is refused at the start is refused here
        except ExportBlocked as blocked:
            messages.error(request, str(blocked))
            return HttpResponseRedirect(back)
        audit(
            assistant=opened.assistant, actor=request.user, action="comparison.exported", target=str(opened),  # type: ignore[arg-type]
            details={"what": what},
        )  # fmt: skip
        encoded = (line.encode() for line in itertools.chain(first, lines))
        name = f"comparison-{round_id}-{what}.jsonl"
        return streamed(encoded, content_type="application/x-ndjson; charset=utf-8", filename=name)


def _number(rows: QuerySet[Any], by: str) -> Coalesce:
    """How many rows there are, as a subquery: joined, pairs and choices would multiply each other."""
    return Coalesce(Subquery(rows.order_by().values(by).annotate(n=Count("pk")).values("n")), 0)

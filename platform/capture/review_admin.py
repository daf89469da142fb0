"""The review of uncertain masks: the list, one mask in its texts, the decisions. Privacy officers only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Min, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from capture.admin_parts import actor_of, excerpt, moment
from capture.models import Quarantine, UncertainMask
from capture.review import Done, NotDecided, accept, mask_more, release, reveal
from capture.review_page import page_of
from privacy.findings import ALL_TYPES

PRIVACY_ONLY = (Role.PRIVACY.value,)


class StateFilter(SimpleListFilter):
    """Open ones unless another state is asked for."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((value, label) for value, label in UncertainMask.State.choices), ("all", "All")]

    def choices(self, changelist: Any) -> Any:
        shown = self.value() or UncertainMask.State.OPEN.value
        for value, label in self.lookup_choices:
            yield {
                "selected": shown == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": label,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[UncertainMask]) -> QuerySet[UncertainMask]:
        value = self.value() or UncertainMask.State.OPEN.value
        return queryset.filter(state=value) if value in UncertainMask.State.values else queryset


class AgeFilter(SimpleListFilter):
    title = "age"
    parameter_name = "age"
    _days: ClassVar[dict[str, int]] = {"day": 1, "week": 7}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("day", "Found today"), ("week", "Of the last 7 days"), ("older", "Older"), ("ends", "Ends in 3 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UncertainMask]) -> QuerySet[UncertainMask]:
        value, now = self.value() or "", timezone.now()
        if value in self._days:
            return queryset.filter(found_at__gte=now - timedelta(days=self._days[value]))
        if value == "older":
            return queryset.filter(found_at__lt=now - timedelta(days=7))
        if value == "ends":
            return queryset.filter(expires_at__lt=now + timedelta(days=3))
        return queryset


class TypeFilter(SimpleListFilter):
    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind.replace("_", " ").lower()) for kind in sorted(ALL_TYPES)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UncertainMask]) -> QuerySet[UncertainMask]:
        return queryset.filter(entity_type=self.value()) if self.value() in ALL_TYPES else queryset


@admin.register(UncertainMask)
class UncertainMaskAdmin(ScopedAdmin):
    """Shows scrubbed text only. A value is read from its own address, one at a time, and that is on record."""

    when_empty = "Where the scrubber is not sure, a person decides here."
    view_roles = PRIVACY_ONLY
    list_display = ("what", "in_question", "said_by", "sure", "status", "assistant", "age", "ends")
    list_display_links = ("what",)
    list_filter = (StateFilter, TypeFilter, AgeFilter, "assistant")
    list_select_related = ("assistant", "turn")
    list_before_template = "capture/review_top.html"
    list_per_page = 50
    show_full_result_count = False
    ordering = ("pk",)

    class Media:
        js = ("capture/list.js",)

    def get_urls(self) -> list[URLPattern]:
        staff, name = self.admin_site.admin_view, "capture_uncertainmask"
        own = [
            path("<int:pk>/decide/", staff(self.decide_view), name=f"{name}_decide"),
            path("<int:pk>/value/", staff(self.value_view), name=f"{name}_value"),
            path("<int:pk>/mask/", staff(self.mask_view), name=f"{name}_mask"),
        ]
        return [*own, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[UncertainMask]:
        rows: QuerySet[UncertainMask] = super().get_queryset(request)
        return rows.defer("turn__embedding", "turn__words", "turn__history", "turn__pii", "turn__metadata")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *PRIVACY_ONLY)
        numbers = (
            UncertainMask.objects.open()
            .filter(assistant__in=own)
            .aggregate(
                open=Count("pk"),
                oldest=Min("found_at"),
                ending=Count("pk", filter=Q(expires_at__lt=timezone.now() + timedelta(days=3))),
            )
        )
        held = Quarantine.objects.held().filter(assistant__in=own).count()
        return super().changelist_view(request, {"numbers": numbers, "held": held, **(extra_context or {})})

    @display(description="Mask", ordering="entity_type")
    def what(self, row: UncertainMask) -> SafeString:
        return format_html("<code>{}</code>", row.placeholder)

    @display(description="Question")
    def in_question(self, row: UncertainMask) -> str:
        return excerpt(row.turn.question)

    @display(description="Who said so", ordering="recognizer")
    def said_by(self, row: UncertainMask) -> str:
        return row.recognizer.replace(":", ": ", 1)

    @display(description="Score", ordering="score")
    def sure(self, row: UncertainMask) -> str:
        return f"{row.score:.2f}"

    @display(
        description="State",
        label={"open": "warning", "accepted": "success", "released": "info", "confirmed": "info", "expired": "info"},
    )
    def status(self, row: UncertainMask) -> tuple[str, str]:
        signs = {"open": "● ", "accepted": "✓ ", "released": "↩ "}
        return row.state, signs.get(row.state, "") + row.state

    @display(description="Found", ordering="found_at")
    def age(self, row: UncertainMask) -> SafeString:
        return moment(row.found_at)

    @display(description="Ends", ordering="expires_at")
    def ends(self, row: UncertainMask) -> str:
        if row.state != UncertainMask.State.OPEN:
            return "–"
        days = (row.expires_at - timezone.now()).days
        return "today" if days < 1 else f"in {days} day{'s' if days > 1 else ''}"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page of one mask."""
        mask = self._readable(request, object_id)
        context = {
            **self.admin_site.each_context(request), "opts": self.opts, "title": "Uncertain mask",
            "page": page_of(mask), "mask": mask, "is_open": mask.state == UncertainMask.State.OPEN,
            "types": [(kind, kind.replace("_", " ").lower()) for kind in sorted(ALL_TYPES)],
            "next": self._neighbour(request, mask, after=True), "previous": self._neighbour(request, mask, after=False),
            "left": self._open(request).count(),
        }  # fmt: skip
        response = TemplateResponse(request, "capture/review.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    def value_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The spellings, as JSON: fetched by the page when an officer asks for them."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        mask = self._readable(request, str(pk))
        try:
            forms = reveal(mask=mask, actor=self._actor(request))
        except NotDecided as refused:
            return JsonResponse({"problem": str(refused)}, status=409)
        response = JsonResponse({"forms": forms[:20]})
        response.headers["Cache-Control"] = "no-store"
        return response

    def decide_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        mask = self._readable(request, str(pk))
        act, actor = request.POST.get("act", ""), self._actor(request)
        try:
            said = self._decide(mask, act, actor)
        except NotDecided as refused:
            messages.error(request, str(refused))
            return HttpResponseRedirect(reverse("admin:capture_uncertainmask_change", args=[pk]))
        messages.success(request, said)
        return self._onwards(request, mask)

    def _decide(self, mask: UncertainMask, act: str, actor: Any) -> str:
        if act in ("accept", "deny"):
            accept(mask=mask, actor=actor, deny=act == "deny")
            listed = " and is on the deny list" if act == "deny" else ""
            return f"{mask.placeholder} stays masked{listed}; its value is destroyed."
        if act in ("release", "allow"):
            done: Done = release(mask=mask, actor=actor, allow=act == "allow")
            listed = " and is on the allow list" if act == "allow" else ""
            return f"{mask.placeholder} is released{listed}: {done.sentence} changed."
        raise NotDecided("There is no such decision.")

    @method_decorator(sensitive_post_parameters())
    def mask_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Masks a selected text; the officer stays on the page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        mask = self._readable(request, str(pk))
        try:
            done = mask_more(
                turn=mask.turn,
                selected=request.POST.get("selected", "").replace("\x00", ""),
                entity_type=request.POST.get("type", ""),
                actor=self._actor(request),
                deny=request.POST.get("deny") == "on",
            )
        except NotDecided as refused:
            messages.error(request, str(refused))
        else:
            messages.success(request, f"Masked in the whole conversation: {done.sentence} changed.")
        return HttpResponseRedirect(reverse("admin:capture_uncertainmask_change", args=[pk]))

    def _readable(self, request: HttpRequest, pk: str) -> UncertainMask:
        if not self.has_view_permission(request):
            raise PermissionDenied
        mask: UncertainMask | None = self.get_object(request, pk)
        if mask is None:
            raise Http404("There is no such page.")
        return UncertainMask.objects.select_related("assistant", "conversation", "turn", "decided_by").get(pk=mask.pk)

    def _open(self, request: HttpRequest) -> QuerySet[UncertainMask]:
        return UncertainMask.objects.open().filter(assistant__in=assistants_of(request.user, *PRIVACY_ONLY))

    def _neighbour(self, request: HttpRequest, mask: UncertainMask, *, after: bool) -> int | None:
        rows = self._open(request).order_by("pk" if after else "-pk")
        found = rows.filter(pk__gt=mask.pk) if after else rows.filter(pk__lt=mask.pk)
        return found.values_list("pk", flat=True).first()

    def _onwards(self, request: HttpRequest, mask: UncertainMask) -> HttpResponse:
        following = self._neighbour(request, mask, after=True) or self._neighbour(request, mask, after=False)
        if following is None:
            return HttpResponseRedirect(reverse("admin:capture_uncertainmask_changelist"))
        return HttpResponseRedirect(reverse("admin:capture_uncertainmask_change", args=[following]))

    def _actor(self, request: HttpRequest) -> Any:
        actor = actor_of(request)
        assert actor is not None  # the admin site lets nobody else in
        return actor

"""Turns, quarantine and feedback in the admin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import assistants_of, has_role, holds_anywhere
from assistants.errors import ApiError
from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from assistants.viewing import AuditedViews, note_view
from assistants.when import when
from capture.admin_parts import actor_of, excerpt, moment
from capture.conversation_admin import OVERSEERS, ConversationAdmin
from capture.exporting import CONTENT_TYPES, Export, Format, open_export
from capture.filters import AdapterFilter, DocumentFilter, FeedbackFilter, VerdictFilter
from capture.intake_admin import IntakeAdmin, MetricAdmin
from capture.leak_admin import LeakReportAdmin
from capture.models import Feedback, Quarantine, Turn
from capture.quarantine_admin import QuarantineAdmin
from capture.rescrub_admin import RescrubAdmin
from capture.review_admin import UncertainMaskAdmin
from capture.streaming import streamed
from capture.turn_list import FOUND_BY_MEANING, LIKE, LikeFilter, MeaningList
from capture.turn_page import page_of, provenance, turns_for_page, turns_to_label
from capture.waiting_admin import WaitingSpansAdmin

__all__ = [
    "ConversationAdmin",
    "FeedbackAdmin",
    "IntakeAdmin",
    "LeakReportAdmin",
    "MetricAdmin",
    "QuarantineAdmin",
    "RescrubAdmin",
    "TurnAdmin",
    "UncertainMaskAdmin",
    "WaitingSpansAdmin",
]

EXPORTERS = (Role.ADMIN.value, Role.PRIVACY.value)


@admin.register(Turn)
class TurnAdmin(AuditedViews, ScopedAdmin):
    """The log: what was asked, what was retrieved, what was answered, what people said of it."""

    when_empty = "Turns come by the log API, the chat, traces and imports."
    viewed_as = "turn"
    list_display = ("asked", "answered", "passages", "verdict", "thumbs", "made_by", "when")
    list_display_links = ("asked",)
    list_filter = (
        LikeFilter, when("asked_at", "asked"), VerdictFilter, FeedbackFilter, AdapterFilter, DocumentFilter, "declined",
        "assistant",
    )  # fmt: skip
    list_before_template = "capture/turn_list_top.html"
    search_fields = ("question",)
    search_help_text = "Words of the question or the answer: boiler pressure, “exit fee”, -meter"
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-asked_at", "-id")
    actions = ("export", "export_parquet")

    class Media:
        js = ("capture/list.js",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Turn]:
        rows: QuerySet[Turn] = super().get_queryset(request)
        rows = rows.defer("embedding", "words", "history", "pii", "completion", "metadata")
        user = request.user
        if isinstance(user, User) and holds_anywhere(user, Role.ANNOTATOR) and not user.is_superuser:
            return rows.filter(Q(assistant__in=assistants_of(user, *OVERSEERS)) | Q(pk__in=turns_to_label(user)))
        return rows

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        return type("TurnList", (MeaningList, super().get_changelist(request, **kwargs)), {})

    def get_list_display(self, request: HttpRequest) -> Sequence[str]:
        columns = ("likeness", *self.list_display) if request.GET.get(LIKE, "").strip() else self.list_display
        if holds_anywhere(request.user, *OVERSEERS):
            return columns
        # What counts of a turn would sway who is still to label it.
        return ["cited" if name == "passages" else name for name in columns if name != "verdict"]

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        found = super().get_list_filter(request)
        return found if holds_anywhere(request.user, *OVERSEERS) else [one for one in found if one is not VerdictFilter]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Turn], search_term: str
    ) -> tuple[QuerySet[Turn], bool]:
        words = search_term.replace("\x00", " ").strip()[:500]
        return (queryset.matching(words) if words else queryset), False  # type: ignore[attr-defined]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *self.view_roles)
        rest = request.GET.copy()
        for name in (LIKE, "p", "e"):
            rest.pop(name, None)
        context = {
            "like": request.GET.get(LIKE, "").strip(),
            "like_most": FOUND_BY_MEANING,
            "unlike": f"?{rest.urlencode()}",
            "any_turns": Turn.objects.filter(assistant__in=own).exists(),
            "waiting": Quarantine.objects.filter(assistant__in=own).aggregate(
                waiting=Count("pk", filter=Q(state="waiting")), held=Count("pk", filter=Q(state="held"))
            ),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @display(description="Question")
    def asked(self, turn: Turn) -> str:
        return excerpt(turn.question)

    @display(description="Answer")
    def answered(self, turn: Turn) -> str:
        return f"◌ {excerpt(turn.response)}" if turn.declined else excerpt(turn.response)

    @display(description="Passages")
    def passages(self, turn: Turn) -> str:
        parts = [self.cited(turn)]
        if resolution := getattr(turn, "resolution", None):
            parts.append(f"{len(resolution.relevant_ranks)} relevant")
        return ", ".join(parts)

    @display(description="Passages")
    def cited(self, turn: Turn) -> str:
        return f"{len({pair[0] for pair in turn.citations if pair})} of {len(turn.retrievals.all())} cited"

    @display(description="Verdict", label={"✓ good": "success", "✗ bad": "danger"})
    def verdict(self, turn: Turn) -> str | None:
        resolution = getattr(turn, "resolution", None)
        if resolution is None:
            return None
        return "✓ good" if resolution.verdict == "good" else "✗ bad"

    @display(description="Feedback")
    def thumbs(self, turn: Turn) -> str:
        signs = {1.0: "▲", -1.0: "▼"}
        shown = [
            signs.get(f.value or 0, "") if f.kind == "thumb" else f"{f.value:g}/5" if f.kind == "rating" else f.kind
            for f in turn.feedback.all()
            if f.kind != Feedback.Kind.METRIC
        ]
        return " ".join(shown) or "–"

    @display(description="Model")
    def made_by(self, turn: Turn) -> str:
        return f"{turn.model or '–'} @ {turn.adapter}" if turn.adapter else turn.model or "–"

    @display(description="Asked", ordering="asked_at")
    def when(self, turn: Turn) -> SafeString:
        return moment(turn.asked_at)

    @display(description="Similarity")
    def likeness(self, turn: Turn) -> str:
        return f"{1 - turn.distance:.2f}"  # type: ignore[attr-defined]

    @admin.action(description="Export as JSON lines")
    def export(self, request: HttpRequest, turns: QuerySet[Turn]) -> HttpResponseBase | None:
        return self._export(request, turns, "jsonl")

    @admin.action(description="Export as Parquet")
    def export_parquet(self, request: HttpRequest, turns: QuerySet[Turn]) -> HttpResponseBase | None:
        return self._export(request, turns, "parquet")

    def _export(self, request: HttpRequest, turns: QuerySet[Turn], form: Format) -> HttpResponseBase | None:
        own = turns.filter(assistant__in=assistants_of(request.user, *EXPORTERS))
        if not own.exists():
            self.message_user(request, "Admins and privacy officers may export turns.", messages.ERROR)
            return None
        # The columns of the list are not those of an export, and neither is its order where it was searched by meaning.
        chosen = Turn.objects.filter(pk__in=own.order_by().values("pk"))
        told = {"page": "turns", "filters": sorted(set(request.GET) - {"p", "e"})}
        try:
            pieces = open_export(Export(turns=chosen, format=form, actor=actor_of(request), told=told))
        except ApiError as error:
            self.message_user(request, str(error.detail), messages.ERROR)
            return None
        return streamed(pieces, content_type=CONTENT_TYPES[form], filename=f"turns.{form}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page of one turn; turns are never edited."""
        turn = self.get_object(request, object_id)
        if turn is None:
            raise Http404("There is no such turn.")
        if not self.has_view_permission(request, turn):
            raise PermissionDenied
        turn = turns_for_page(Turn.objects.defer("embedding", "words")).get(pk=turn.pk)
        viewer = actor_of(request)
        assert viewer is not None
        context = {
            **self.admin_site.each_context(request), **(extra_context or {}), "opts": self.opts, "title": "Turn",
            "page": page_of(turn, viewer=viewer), "turn": turn, "provenance": provenance(turn),
            "may_erase": has_role(viewer, turn.assistant, Role.PRIVACY.value),
        }  # fmt: skip
        note_view(assistant_id=turn.assistant_id, actor=viewer, what="turn", target=str(turn.pk))
        return TemplateResponse(request, "capture/turn.html", context)


@admin.register(Feedback)
class FeedbackAdmin(AuditedViews, ScopedAdmin):
    """What users said, newest first."""

    when_empty = "What users think of answers comes by the log API, the chat and imports."
    view_roles = OVERSEERS
    viewed_as = "feedback"
    list_display = ("kind", "worth", "said", "question", "assistant", "given")
    list_filter = ("kind", "assistant")
    list_select_related = ("turn", "assistant")
    search_fields = ("text",)
    show_full_result_count = False
    ordering = ("-pk",)  # as it came: by the time when it was given, all of it would be sorted for each page
    fields = ("kind", "metric", "worth", "text", "turn", "given", "received")

    @display(description="Value", ordering="value")
    def worth(self, feedback: Feedback) -> str:
        signs = {"up": "▲ ", "down": "▼ "} if feedback.kind == Feedback.Kind.THUMB else {}
        return signs.get(feedback.in_words, "") + feedback.in_words or "–"

    @display(description="Given", ordering="given_at")
    def given(self, feedback: Feedback) -> SafeString:
        return moment(feedback.given_at)

    @display(description="Received")
    def received(self, feedback: Feedback) -> SafeString:
        return moment(feedback.received_at)

    @display(description="Text")
    def said(self, feedback: Feedback) -> str:
        return feedback.metric or excerpt(feedback.text) or "–"

    @display(description="Question")
    def question(self, feedback: Feedback) -> str:
        return excerpt(feedback.turn.question)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Feedback]:
        rows: QuerySet[Feedback] = super().get_queryset(request)
        return rows.defer("turn__embedding", "turn__words")

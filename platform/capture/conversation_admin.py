"""Conversations in the admin: how many turns each has, and on its page the turns themselves, as they were asked."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count, Max, Min, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from unfold.decorators import display

from assistants.access import has_role
from assistants.models import Role
from assistants.presenting import excerpt, moment
from assistants.scoped_admin import ScopedAdmin
from assistants.viewing import note_view
from capture.admin_parts import actor_of
from capture.models import Conversation, Turn

OVERSEERS = (Role.ADMIN.value, Role.PRIVACY.value, Role.REVIEWER.value)
"""They see the whole log; annotators see the turns of the queues that they work in."""
PAGE_SIZE = 25
ANSWER = 400
"""Characters of an answer that are shown; all of it is one click away."""


@admin.register(Conversation)
class ConversationAdmin(ScopedAdmin):
    when_empty = "Turns that come with the id of a conversation are listed by it."
    view_roles = OVERSEERS
    list_display = ("external_id", "assistant", "n_turns", "asked")
    list_filter = ("assistant",)
    list_select_related = ("assistant",)
    search_fields = ("external_id",)
    show_full_result_count = False
    ordering = ("-pk",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super().get_queryset(request)
        # Asked for the rows of the page alone: a join would read the turns of every conversation first.
        turns = Turn.objects.filter(conversation=OuterRef("pk")).order_by().values("conversation")
        return rows.defer("entities").annotate(
            turn_count=Coalesce(Subquery(turns.annotate(n=Count("pk")).values("n")), 0),
            first_asked=Subquery(turns.annotate(first=Min("asked_at")).values("first")),
        )

    @display(description="Turns")
    def n_turns(self, conversation: Any) -> int:
        return int(conversation.turn_count)

    @display(description="Asked")
    def asked(self, conversation: Any) -> SafeString | str:
        return moment(conversation.first_asked)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page of one conversation, whose turns are never edited."""
        conversation = self.get_object(request, object_id)
        if conversation is None:
            raise Http404("There is no such conversation.")
        if not self.has_view_permission(request, conversation):
            raise PermissionDenied
        viewer = actor_of(request)
        assert viewer is not None  # the admin site lets nobody else in
        page = Paginator(turns_of(conversation), PAGE_SIZE).get_page(request.GET.get("page"))
        context = {
            **self.admin_site.each_context(request), **(extra_context or {}), "opts": self.opts,
            "title": "Conversation", "conversation": conversation, "page": page,
            "turns": [(turn, excerpt(turn.response, ANSWER)) for turn in page],
            "span": Turn.objects.filter(conversation=conversation).aggregate(
                first=Min("asked_at"), last=Max("asked_at")
            ),
            "may_erase": has_role(viewer, conversation.assistant, Role.PRIVACY.value),
        }  # fmt: skip
        note_view(
            assistant_id=conversation.assistant_id, actor=viewer, what="conversation", target=str(conversation.pk),
            details={"n": len(page.object_list)},
        )  # fmt: skip
        return TemplateResponse(request, "capture/conversation.html", context)


def turns_of(conversation: Conversation) -> QuerySet[Turn]:
    """In the order in which they were asked, with what the page says of each."""
    shown = ("question", "response", "declined", "asked_at", "resolution__verdict")
    turns = Turn.objects.filter(conversation=conversation).select_related("resolution").only(*shown)
    return turns.prefetch_related("feedback", "queue_items").order_by("asked_at", "id")

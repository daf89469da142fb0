"""A page per annotator: what their labels changed. For themselves, and for those who settle or configure."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.views.decorators.http import require_GET

from annotations.impact import State, datasets_of, impact_of, labels_of
from annotations.label_views import SETTLERS
from annotations.models import Annotation
from annotations.people import WORKERS
from assistants.access import assistants_of
from assistants.models import Assistant
from assistants.viewing import note_view

PAGE_SIZE = 25


@require_GET
def mine(request: HttpRequest) -> HttpResponse:
    """One's own labels, on every assistant that one labels for."""
    me = cast("User", request.user)
    assistants = assistants_of(me, *WORKERS)
    if not assistants.exists():
        raise PermissionDenied("Only people who label have labels.")
    return _page(request, me, assistants)


@require_GET
def of_person(request: HttpRequest, user_id: int) -> HttpResponse:
    """Somebody's labels on the assistants that one reviews or administers; others answer as if nobody was there."""
    me = cast("User", request.user)
    if user_id == me.pk:
        return mine(request)
    assistants = assistants_of(me, *SETTLERS)
    labels = Annotation.objects.filter(annotator=OuterRef("pk"), turn__assistant__in=assistants)
    person = get_object_or_404(User.objects.filter(Exists(labels)), pk=user_id)
    return _page(request, person, assistants)


def _page(request: HttpRequest, person: User, assistants: QuerySet[Assistant]) -> HttpResponse:
    slug = request.GET.get("assistant", "")
    chosen = assistants.filter(slug=slug) if slug else assistants
    state = request.GET.get("state", "")
    labels = labels_of(person, chosen)
    if state in State.values:
        labels = labels.filter(state=state)
    rows: QuerySet[Any] = labels.select_related("turn", "queue").defer("turn__embedding", "turn__words")
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    if person != request.user:
        for assistant in chosen:
            note_view(assistant_id=assistant.pk, actor=cast("User", request.user), what="labels", target=str(person))
    context = {
        **admin.site.each_context(request),
        "title": "What your labels changed" if person == request.user else f"What the labels of {person} changed",
        "person": person,
        "own": person == request.user,
        "impact": impact_of(person, chosen),
        "datasets": datasets_of(person, chosen),
        "page": page,
        "states": State.choices,
        "state": state,
        "state_names": dict(State.choices),
        "assistants": assistants.order_by("name"),
        "slug": slug,
    }
    return TemplateResponse(request, "annotations/impact.html", context)

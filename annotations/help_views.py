"""What the labelling page asks for while somebody works: the item ahead, what the label becomes, a search, suggestions,
and a place for the draft. Each takes the form as it stands and answers the page's script."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views.decorators.http import require_POST

from annotations import services
from annotations.drafts import read_draft
from annotations.effects import effects_of
from annotations.errors import ItemGone
from annotations.label_views import WORKERS, open_queue, posted_item, refuse, work_of
from annotations.missing import search_passages
from annotations.models import Queue, QueueItem
from annotations.saved_drafts import save_draft
from annotations.suggesting import show_suggestions
from capture.models import Turn


@require_POST
def ahead(request: HttpRequest, queue_id: int) -> HttpResponse:
    """The item after the one on the screen, ready to be shown; empty when there is none."""
    queue, user = open_queue(request, queue_id, *WORKERS)
    item = posted_item(request, queue)
    found = services.item_ahead(queue=queue, annotator=user, but=item.pk) if item is not None else None
    if found is None:
        return JsonResponse({"html": ""})
    following, expires_at = found
    work = work_of(queue, user, following, expires_at=expires_at)
    html = render_to_string("annotations/_work.html", dict(work), request=request)
    return JsonResponse({"html": html, "item": following.pk})


@dataclass(frozen=True)
class Work:
    """The item that a request of the page is about, in the queue and of the person who has it open."""

    queue: Queue
    user: User
    item: QueueItem


def with_item(view: Callable[[HttpRequest, Work], HttpResponse]) -> Callable[[HttpRequest, int], HttpResponse]:
    """A view on the posted item of a queue that the person may label in; one that is gone is refused."""

    @require_POST
    @wraps(view)
    def on_item(request: HttpRequest, queue_id: int) -> HttpResponse:
        queue, user = open_queue(request, queue_id, *WORKERS)
        item = posted_item(request, queue)
        if item is None:
            return refuse(request, queue, ItemGone())
        return view(request, Work(queue, user, item))

    return on_item


@with_item
def effect(request: HttpRequest, work: Work) -> HttpResponse:
    """What the form as it stands would become, and whether each sentence of the correction is supported."""
    turn = Turn.objects.with_contexts().select_related("assistant").defer("embedding").get(pk=work.item.turn_id)
    told = effects_of(turn, read_draft(request.POST), labels_needed=work.item.labels_needed)
    return JsonResponse(
        {
            "becomes": render_to_string("annotations/_becomes.html", {"effects": told.effects}),
            "checks": render_to_string("annotations/_checks.html", {"checks": told.checks}),
        }
    )


@with_item
def search(request: HttpRequest, work: Work) -> HttpResponse:
    """Passages of the knowledge base for a few words."""
    turn = Turn.objects.select_related("assistant").defer("embedding").get(pk=work.item.turn_id)
    try:
        result = search_passages(turn, request.POST.get("query", ""))
    except ValidationError as error:
        return JsonResponse({"message": " ".join(error.messages), "errors": error.message_dict}, status=422)
    return JsonResponse({"html": render_to_string("annotations/_found.html", {"search": result})})


@with_item
def suggestions(request: HttpRequest, work: Work) -> HttpResponse:
    """What programs and judges say of the turn; that it was seen is kept."""
    found = show_suggestions(item=work.item, annotator=work.user, decided=read_draft(request.POST).verdict)
    context = {"labels": found.labels, "live": found.live, "shown": work.queue.show_suggestions}
    return JsonResponse({"html": render_to_string("annotations/_suggestions.html", context)})


@with_item
def draft(request: HttpRequest, work: Work) -> HttpResponse:
    """Keeps the form as it stands, encrypted."""
    try:
        at = float(request.POST.get("at", ""))
    except ValueError:
        at = 0.0
    kept = save_draft(
        item=work.item, annotator=work.user, draft=read_draft(request.POST), at=at if math.isfinite(at) else 0.0
    )
    return JsonResponse({"kept": kept})

"""What happens to a queue while people work in it: pause, hand over, ask again; its items, and which are gold."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_POST

from annotations import steering
from annotations.errors import LabelRefused
from annotations.gold import mark_gold, unmark_gold
from annotations.label_views import SETTLERS, open_queue
from annotations.models import Assignment, Queue, QueueItem
from assistants.access import has_role
from assistants.models import Role
from assistants.viewing import note_view
from capture.models import Turn

PAGE_SIZE = 50
STATES = (
    ("", "All"), ("open", "To label"), ("leased", "Being labelled"), ("split", "Disagreements"), ("done", "Done"),
    ("skipped", "Skipped by somebody"), ("gold", "Known answer"),
)  # fmt: skip
MAX_SEARCH = 200


@require_POST
def pause(request: HttpRequest, queue_id: int) -> HttpResponse:
    """``paused``: 1 to pause, anything else to open again."""
    queue, actor = open_queue(request, queue_id, Role.ADMIN)
    steering.set_paused(queue=queue, actor=actor, paused=request.POST.get("paused") == "1")
    messages.success(request, "Paused: nobody gets new items." if queue.paused else "Open again.")
    return _back(queue)


@require_POST
def hand_over(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, actor = open_queue(request, queue_id, Role.ADMIN)
    person, to = _person(request, "person"), _person(request, "to")
    if person is None or (request.POST.get("to") and to is None):
        messages.error(request, "Choose whose items, and to whom they go.")
        return _back(queue)
    try:
        opened = steering.hand_over(queue=queue, actor=actor, person=person, to=to)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
        return _back(queue)
    where = to.get_username() if to is not None else "whoever comes next"
    messages.success(request, f"{opened} open item{'' if opened == 1 else 's'} of {person.get_username()} to {where}.")
    return _back(queue)


@require_POST
def ask_again(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, actor = open_queue(request, queue_id, Role.ADMIN)
    opened = steering.ask_again(queue=queue, actor=actor)
    messages.success(request, f"{opened} disagreement{'' if opened == 1 else 's'} opened for one more label.")
    return _back(queue)


@require_GET
def items(request: HttpRequest, queue_id: int) -> HttpResponse:
    """What is in the queue, and how far each item is."""
    queue, user = open_queue(request, queue_id, *SETTLERS)
    state = request.GET.get("state", "")
    words = request.GET.get("q", "").replace("\x00", " ").strip()[:MAX_SEARCH]
    rows = _in_state(QueueItem.objects.filter(queue=queue), state)
    if words:
        rows = rows.filter(turn__in=Turn.objects.of(queue.assistant).matching(words).values("pk"))
    page = Paginator(rows.order_by("pk"), PAGE_SIZE).get_page(request.GET.get("page"))
    keys = [item.pk for item in page.object_list]
    shown = QueueItem.objects.filter(pk__in=keys).select_related("turn", "turn__resolution", "gold").order_by("pk")
    shown = shown.only(
        "queue_id", "labels_needed", "labels_done", "done", "turn__question", "turn__declined", "gold__verdict",
        "turn__resolution__verdict", "turn__resolution__how",
    )  # fmt: skip
    holders: dict[int, list[str]] = {}
    leases = Assignment.objects.live().filter(item__in=keys).order_by("annotator__username")
    for key, name in leases.values_list("item", "annotator__username"):
        holders.setdefault(key, []).append(name)
    note_view(
        assistant_id=queue.assistant_id, actor=user, what="item_list", target=str(queue.pk), details={"n": len(keys)}
    )
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": f"Items of {queue.name}",
        "queue": queue,
        "page": page,
        "rows": [(item, holders.get(item.pk, [])) for item in shown],
        "states": STATES,
        "state": state,
        "words": words,
        "query": request.GET.urlencode(),
        "may_fill": has_role(user, queue.assistant, Role.ADMIN),
    }
    return TemplateResponse(request, "annotations/items.html", context)


@require_POST
def gold(request: HttpRequest, queue_id: int, item_id: int) -> HttpResponse:
    """``gold``: 1 makes the item's resolution a known answer, anything else takes that back.

    ``back``: the filter of the list that one came from, as in its address.
    """
    queue, reviewer = open_queue(request, queue_id, *SETTLERS)
    item = get_object_or_404(QueueItem.objects.select_related("turn__assistant"), pk=item_id, queue=queue)
    try:
        if request.POST.get("gold") == "1":
            mark_gold(item=item, reviewer=reviewer)
            messages.success(request, "Everybody will get this one, and its answer is known.")
        else:
            unmark_gold(item=item, reviewer=reviewer)
            messages.success(request, "An ordinary item again.")
    except LabelRefused as refused:
        messages.error(request, str(refused))
    filters = QueryDict(request.POST.get("back", "")[:1000])
    kept = urlencode({name: filters[name] for name in ("state", "q", "page") if filters.get(name)})
    return HttpResponseRedirect(reverse("annotations:items", args=[queue.pk]) + (f"?{kept}" if kept else ""))


def _in_state(rows: QuerySet[QueueItem], state: str) -> QuerySet[QueueItem]:
    mine = Assignment.objects.filter(item=OuterRef("pk"))
    wanted = {
        "open": Q(done=False),
        "done": Q(done=True, gold=None),
        "split": Q(done=True, turn__resolution=None),
        "gold": Q(gold__isnull=False),
        "leased": Q(Exists(mine.live())),
        "skipped": Q(Exists(mine.skipped())),
    }.get(state)
    return rows if wanted is None else rows.filter(wanted)


def _person(request: HttpRequest, name: str) -> User | None:
    key = request.POST.get(name, "")
    return User.objects.filter(pk=int(key)).first() if key.isascii() and key.isdigit() and len(key) < 10 else None


def _back(queue: Queue) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:annotations_queue_change", args=[queue.pk]))

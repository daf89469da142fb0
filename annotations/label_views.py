"""The labelling page and what its script calls. Every action answers a script with JSON (the next item as HTML, or a
message) and a plain form with a redirect, so that the page also works without the script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_GET, require_POST

from annotations import people, scrubbing, services
from annotations.drafts import Draft, earlier_draft, read_draft
from annotations.errors import AlreadyDone, CannotScrub, ItemGone, LabelRefused
from annotations.guideline import render_guideline
from annotations.missing import added_passages
from annotations.models import Assignment, ContextMark, Queue, QueueItem, Reason
from annotations.people import with_share
from annotations.presenting import present
from annotations.progress import progress_and_today
from annotations.saved_drafts import saved_draft
from annotations.validation import SKIP_REASONS
from assistants.access import has_role, require_role
from assistants.models import Role
from assistants.viewing import note_view
from capture.models import Turn

WORKERS = people.WORKERS
SETTLERS = (Role.REVIEWER, Role.ADMIN)

_PARTS = (
    "messages", "passages", "correction", "drafts", "effects", "ahead", "search", "suggestions", "sending", "lease",
    "skip", "keys",
)  # fmt: skip
PARTS = tuple(f"annotations/label-{part}.js" for part in _PARTS)
MARK_SIGNS = {"relevant": "✓", "not_relevant": "✗", "unsure": "?"}
KEYS = (
    ("1 – 9", "Mark a passage: relevant, not relevant, unsure, none"),
    ("g", "Good"),
    ("b", "Bad, then a number for the reason"),
    ("d", "Should have declined (or: rightly declined)"),
    ("r", "Reasons, then a number"),
    ("e", "Write a better answer"),
    ("Alt + 1 – 9", "Cite a passage in the better answer"),
    ("/", "Search for what retrieval missed"),
    ("v", "What machines say (where the queue allows it)"),
    ("t", "Start the better answer from what the live model says (once that is shown)"),
    ("n", "Note"),
    ("Enter", "Submit (in a field: Ctrl + Enter)"),
    ("Esc", "Leave a field or the reasons"),
    ("s", "Skip, with a reason"),
    ("u", "Undo the last label or skip"),
    ("x", "Unfold or fold all passages"),
    ("?", "These keys"),
)


def open_queue(request: HttpRequest, queue_id: int, *roles: str) -> tuple[Queue, User]:
    """The queue, if this person has one of the roles on its assistant. Where annotators may enter, only those may for
    whom the queue is.

    Raises:
        Http404: no such queue.
        PermissionDenied: not theirs.
    """
    user = cast("User", request.user)
    queue: Any = get_object_or_404(with_share(Queue.objects.select_related("assistant"), user), pk=queue_id)
    require_role(user, queue.assistant, *roles)
    if Role.ANNOTATOR in roles and not queue.for_them:
        raise PermissionDenied(f"Only the people chosen for it work in “{queue.name}”.")
    return queue, user


@require_GET
def label_page(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, user = open_queue(request, queue_id, *WORKERS)
    scrubbing.warm_up()
    return _page(request, queue, user, work_of(queue, user, services.next_item(queue=queue, annotator=user)))


@require_POST
def submit_label(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, user = open_queue(request, queue_id, *WORKERS)
    draft = read_draft(request.POST)
    item = posted_item(request, queue)
    try:
        if item is None:
            raise ItemGone
        services.submit(
            turn=Turn(pk=item.turn_id),
            annotator=user,
            queue=queue,
            verdict=draft.verdict,
            reasons=draft.all_reasons,
            correction=draft.used_correction,
            marks=draft.marks,
            note=draft.note,
            seconds=draft.seconds,
            missed=draft.missed,
        )
    except ValidationError as error:
        return refuse_content(request, error, queue=queue, user=user, item=item, draft=draft)
    except LabelRefused as refused:
        return refuse(request, queue, refused)
    return shown_already(request, queue, user, "Saved.") or following(request, queue, user, "Saved.")


@require_POST
def skip_item(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, user = open_queue(request, queue_id, *WORKERS)
    item = posted_item(request, queue)
    try:
        if item is None:
            raise ItemGone
        services.skip(item_id=item.pk, annotator=user, reason=request.POST.get("reason", ""))
    except ValidationError as error:
        return refuse_content(request, error, queue=queue, user=user, item=item, draft=Draft())
    except LabelRefused as refused:
        return refuse(request, queue, refused)
    return shown_already(request, queue, user, "Skipped.") or following(request, queue, user, "Skipped.")


@require_POST
def undo(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, user = open_queue(request, queue_id, *WORKERS)
    try:
        services.undo_last(queue=queue, annotator=user)
    except LabelRefused as refused:
        return refuse(request, queue, refused)
    return following(request, queue, user, "Taken back: change it and submit again.")


@require_POST
def renew(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, user = open_queue(request, queue_id, *WORKERS)
    item = posted_item(request, queue)
    try:
        if item is None:
            raise ItemGone
        expires_at = services.renew_lease(item_id=item.pk, annotator=user)
    except LabelRefused as refused:
        return refuse(request, queue, refused)
    return JsonResponse({"expires": expires_at.isoformat()})


@require_POST
def release(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, user = open_queue(request, queue_id, *WORKERS)
    item = posted_item(request, queue)
    if item is not None:
        expires_at = moment(request.POST.get("expires", ""))
        services.release_lease(item_id=item.pk, annotator=user, expires_at=expires_at)
    return HttpResponse(status=204)


def posted_key(request: HttpRequest, name: str = "item") -> int | None:
    key = request.POST.get(name, "")
    return int(key) if key.isascii() and key.isdecimal() and len(key) < 19 else None


def posted_item(request: HttpRequest, queue: Queue) -> QueueItem | None:
    """Without its turn: what is done to it reads the turn under a lock, or with its contexts."""
    key = posted_key(request)
    item = QueueItem.objects.filter(pk=key, queue=queue).first() if key is not None else None
    if item is not None:
        item.queue = queue
    return item


def moment(text: str) -> datetime | None:
    try:
        return parse_datetime(text)
    except ValueError:
        return None


def work_of(
    queue: Queue, user: User, item: QueueItem | None, draft: Draft | None = None, expires_at: datetime | None = None
) -> dict[str, object]:
    """What `_work.html` shows: the item with its form, or why there is none. With ``expires_at`` the item is one that
    is fetched ahead: how far the queue is then comes with the label before it."""
    work: dict[str, object] = {
        "queue": queue,
        "item": item,
        "may_settle": has_role(user, queue.assistant, *SETTLERS),
    }
    if expires_at is None:
        work["progress"], work["today"] = progress_and_today(queue, user)
    if item is None:
        return work
    turn = Turn.objects.with_contexts().select_related("assistant").defer("embedding").get(pk=item.turn_id)
    details = {"queue": queue.pk}
    note_view(assistant_id=queue.assistant_id, actor=user, what="item", target=str(turn.pk), details=details)
    if expires_at is None:
        expires_at = Assignment.objects.filter(item=item, annotator=user).values_list("expires_at", flat=True).first()
    saved = None if draft else saved_draft(item, user)
    form, saved_at = saved or (draft or earlier_draft(turn, user), 0.0)
    return work | {
        "view": present(turn),
        "suggests": queue.show_suggestions,
        "draft": form,
        "saved_at": saved_at,
        "added": added_passages(turn, form.missed),
        "expires": expires_at.isoformat() if expires_at else "",
        "reasons": list(enumerate(Reason.choices, start=1)),
        "marks": [(value, MARK_SIGNS[value], label) for value, label in ContextMark.Relevance.choices],
    }


def _page(
    request: HttpRequest, queue: Queue, user: User, work: Mapping[str, object], status: int = 200
) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        **work,
        "title": f"Label: {queue.name}",
        "guideline": render_guideline(queue.guideline) if queue.guideline else "",
        "keys": KEYS,
        "parts": PARTS,
        "skip_reasons": list(enumerate(SKIP_REASONS, start=1)),
        "account": user.get_username(),
    }
    return TemplateResponse(request, "annotations/label.html", context, status=status)


def following(request: HttpRequest, queue: Queue, user: User, said: str) -> HttpResponse:
    """After an action that was stored: the next item."""
    if not by_script(request):
        messages.success(request, said)
        return HttpResponseRedirect(reverse("annotations:label", args=[queue.pk]))
    work = work_of(queue, user, services.next_item(queue=queue, annotator=user))
    html = render_to_string("annotations/_work.html", dict(work), request=request)
    return JsonResponse({"message": said, "html": html})


def shown_already(request: HttpRequest, queue: Queue, user: User, said: str) -> HttpResponse | None:
    """After an action that was stored, where the page shows the item that it had fetched ahead: leases that item as one
    on a screen. None when there is no such item, or somebody else has it by now."""
    key = posted_key(request, "shown")
    if key is None or not by_script(request):
        return None
    try:
        expires_at = services.renew_lease(item_id=key, annotator=user, queue=queue)
    except LabelRefused:
        return None
    done, today = progress_and_today(queue, user)
    counts = {"progress": done, "today": today, "queue": queue}
    progress = render_to_string("annotations/_progress.html", counts, request=request)
    return JsonResponse({"message": said, "shown": key, "expires": expires_at.isoformat(), "progress": progress})


def refuse_content(
    request: HttpRequest,
    error: ValidationError,
    *,
    queue: Queue,
    user: User,
    item: QueueItem | None,
    draft: Draft,
) -> HttpResponse:
    fields = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
    said = " ".join(message for problems in fields.values() for message in problems)
    if by_script(request):
        return JsonResponse({"message": said, "errors": fields}, status=422)
    messages.error(request, said)
    return _page(request, queue, user, work_of(queue, user, item, draft), status=422)


def refuse(request: HttpRequest, queue: Queue, refused: LabelRefused) -> HttpResponse:
    if by_script(request):
        status = 503 if isinstance(refused, CannotScrub) else 409
        gone = isinstance(refused, AlreadyDone | ItemGone)
        return JsonResponse({"message": str(refused), "gone": gone}, status=status)
    messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("annotations:label", args=[queue.pk]))


def by_script(request: HttpRequest) -> bool:
    return request.headers.get("X-Requested-With") == "fetch"

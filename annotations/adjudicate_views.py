"""Reviewers settle what labels leave open: a list of disagreements, and one of them side by side."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from annotations import services
from annotations.drafts import read_draft
from annotations.errors import LabelRefused
from annotations.label_views import SETTLERS, open_queue
from annotations.models import Annotation, QueueItem, Reason, Resolution
from annotations.presenting import present
from annotations.progress import queue_progress
from annotations.resolving import Wording, response_to_learn
from annotations.trust.counting import Standing, standing
from annotations.trust.of_queue import alpha_on_verdicts
from assistants.viewing import note_view
from capture.models import Turn

PAGE_SIZE = 25
MAX_WORDS = 1_500
"""On either side: comparing takes time with the square of them, and a page shows several corrections."""


@dataclass(frozen=True)
class Change:
    """A stretch of a correction: kept from the logged answer, added, or taken away."""

    text: str
    kind: str


@dataclass(frozen=True)
class Point:
    """Something that a label says; ``differs``: not all labels that count say the same."""

    text: str
    differs: bool
    relevance: str = ""


@dataclass(frozen=True)
class LabelView:
    label: Annotation
    standing: Standing
    changes: tuple[Change, ...]
    learnt: str
    """What would be learnt if this label counted alone."""
    reasons: tuple[Point, ...]
    marks: tuple[Point, ...]


@require_GET
def disagreements(request: HttpRequest, queue_id: int) -> HttpResponse:
    queue, reviewer = open_queue(request, queue_id, *SETTLERS)
    split = QueueItem.objects.filter(queue=queue).split().select_related("turn").order_by("pk")
    page = Paginator(split.defer("turn__embedding"), PAGE_SIZE).get_page(request.GET.get("page"))
    labels: dict[object, list[Annotation]] = {}
    current = Annotation.objects.current().filter(turn__in=[item.turn_id for item in page])
    for label in current.select_related("annotator"):
        labels.setdefault(label.turn_id, []).append(label)
    context = {
        **admin.site.each_context(request),
        "title": f"Adjudicate: {queue.name}",
        "queue": queue,
        "page": page,
        "rows": [(item, labels.get(item.turn_id, [])) for item in page],
        "alpha": alpha_on_verdicts(queue),
        "progress": queue_progress(queue),
    }
    details = {"n": len(page.object_list)}
    note_view(
        assistant_id=queue.assistant_id, actor=reviewer, what="disagreements", target=str(queue.pk), details=details
    )
    return TemplateResponse(request, "annotations/disagreements.html", context)


@require_http_methods(["GET", "POST"])
def adjudicate_page(request: HttpRequest, queue_id: int, item_id: int) -> HttpResponse:
    queue, reviewer = open_queue(request, queue_id, *SETTLERS)
    item = get_object_or_404(QueueItem, pk=item_id, queue=queue)
    turn = Turn.objects.with_contexts().select_related("assistant").defer("embedding").get(pk=item.turn_id)
    draft = read_draft(request.POST)
    if request.method == "POST":
        try:
            services.adjudicate(
                turn=turn,
                reviewer=reviewer,
                verdict=draft.verdict,
                reasons=draft.all_reasons,
                response=draft.used_correction,
                seen=request.POST.get("seen", ""),
            )
        except ValidationError as error:
            for message in error.messages:
                messages.error(request, message)
        except LabelRefused as refused:
            messages.error(request, str(refused))
        else:
            messages.success(request, "Settled.")
            following = QueueItem.objects.filter(queue=queue).split().order_by("pk")
            after = following.filter(pk__gt=item.pk).first() or following.first()
            if after is None:
                return HttpResponseRedirect(reverse("annotations:disagreements", args=[queue.pk]))
            return HttpResponseRedirect(reverse("annotations:adjudicate", args=[queue.pk, after.pk]))
    settled = Resolution.objects.select_related("resolved_by").filter(turn=turn).first()
    labels, earlier = _label_views(turn, settled)
    context = {
        **admin.site.each_context(request),
        "title": "Settle a disagreement",
        "queue": queue,
        "item": item,
        "view": present(turn),
        "labels": labels,
        "earlier": earlier,
        "draft": draft,
        "reasons": list(enumerate(Reason.choices, start=1)),
        "settled": settled,
        "seen": services.stamp_of(settled),
        "progress": queue_progress(queue),
    }
    details = {"queue": queue.pk, "page": "adjudicate"}
    note_view(assistant_id=queue.assistant_id, actor=reviewer, what="item", target=str(turn.pk), details=details)
    status = 422 if request.method == "POST" else 200
    return TemplateResponse(request, "annotations/adjudicate.html", context, status=status)


def word_changes(before: str, after: str) -> tuple[Change, ...]:
    """What a correction keeps, adds and takes away, word by word. Beyond `MAX_WORDS` a side nothing is marked: the
    whole correction is there, as kept."""
    old, new = re.findall(r"\s*\S+", before), re.findall(r"\s*\S+", after)
    if max(len(old), len(new)) > MAX_WORDS:
        return (Change(after, "kept"),)
    changes: list[Change] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            changes.append(Change("".join(old[i1:i2]), "kept"))
            continue
        if i2 > i1:
            changes.append(Change("".join(old[i1:i2]), "gone"))
        if j2 > j1:
            changes.append(Change("".join(new[j1:j2]), "added"))
    return tuple(changes)


def _label_views(turn: Turn, resolution: Resolution | None) -> tuple[list[LabelView], list[LabelView]]:
    """Labels that stand side by side, and those that their authors have replaced or taken back."""
    wording = Wording(decline=turn.assistant.decline_sentence, handoff=turn.assistant.handoff_sentence)
    counted = set(resolution.annotations.values_list("pk", flat=True)) if resolution else set()
    labels = list(Annotation.objects.filter(turn=turn).select_related("annotator").prefetch_related("marks__retrieval"))
    current = [label for label in labels if label.replaced_by_id is None and label.withdrawn_at is None]
    said = _said_by(current)
    views = []
    for label in labels:
        learnt = response_to_learn(
            verdict=label.verdict,
            reasons=label.reasons,
            correction=label.correction,
            logged=turn.response,
            wording=wording,
        )
        marks = sorted((mark.retrieval.rank, mark.relevance) for mark in label.marks.all())
        views.append(
            LabelView(
                label,
                standing(label, resolution, counted),
                # Of labels that stand: comparing long texts takes a while, and of replaced ones there is no limit.
                word_changes(turn.response, label.correction) if label.correction and label in current else (),
                learnt,
                tuple(Point(str(Reason(r).label), 0 < said[r] < len(current)) for r in label.reasons),
                tuple(Point(f"[{rank}]", 0 < said[rank, value] < len(current), value) for rank, value in marks),
            )
        )
    kept = {label.pk for label in current}
    return [view for view in views if view.label.pk in kept], [view for view in views if view.label.pk not in kept]


def _said_by(labels: list[Annotation]) -> Counter[object]:
    """How many labels name a reason, or mark a passage the same way."""
    said: Counter[object] = Counter(reason for label in labels for reason in label.reasons)
    said.update((mark.retrieval.rank, mark.relevance) for label in labels for mark in label.marks.all())
    return said

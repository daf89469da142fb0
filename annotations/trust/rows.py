"""The labels that the agreement page is about, read once: every question is answered from the same rows."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from django.db.models import Q

from annotations.models import Annotation, AnnotationQuerySet, ContextMark, Queue
from assistants.models import Assistant

MAX_LABELS = 20_000
"""Of one page, the newest: what a request can hold and compute in about a second. The page says when there are more."""


class LabelRow(NamedTuple):
    pk: int
    turn: uuid.UUID
    name: str
    queue: int | None
    verdict: str
    reasons: Sequence[str]
    seconds: float | None
    created_at: datetime
    declined: bool


class MarkRow(NamedTuple):
    retrieval: int
    turn: uuid.UUID
    name: str
    relevance: str
    created_at: datetime


@dataclass(frozen=True)
class Scope:
    """Which labels: of one assistant always. ``people``: user ids, nobody named is everybody."""

    assistant: Assistant
    queue: Queue | None = None
    since: date | None = None
    until: date | None = None
    people: tuple[int, ...] = ()

    def labels(self) -> AnnotationQuerySet:
        """All current labels in it, unordered."""
        return self.ever_given().current()

    def ever_given(self) -> AnnotationQuerySet:
        """Also those that their author has replaced or taken back."""
        wanted = Q(turn__assistant=self.assistant)
        if self.queue is not None:
            wanted &= Q(queue=self.queue)
        if self.since is not None:
            wanted &= Q(created_at__date__gte=self.since)
        if self.until is not None:
            wanted &= Q(created_at__date__lte=self.until)
        if self.people:
            wanted &= Q(annotator__in=self.people)
        return Annotation.objects.filter(wanted).order_by()


@dataclass(frozen=True)
class Rows:
    labels: tuple[LabelRow, ...]
    """Oldest first."""
    marks: tuple[MarkRow, ...]
    """Without "unsure", which says nothing about the passage."""
    total: int
    """Labels there are: more than ``labels`` where the page is full."""


def read_rows(scope: Scope) -> Rows:
    """Two queries, three where the page is full."""
    newest = scope.labels().order_by("-created_at", "-pk")
    fields = (
        "pk", "turn", "annotator__username", "queue", "verdict", "reasons", "seconds", "created_at", "turn__declined",
    )  # fmt: skip
    labels = [LabelRow(*row) for row in newest.values_list(*fields)[:MAX_LABELS]]
    total = len(labels) if len(labels) < MAX_LABELS else newest.count()
    marks = (
        ContextMark.objects.filter(annotation__in=newest.values("pk")[:MAX_LABELS])
        .exclude(relevance=ContextMark.Relevance.UNSURE)
        .order_by("annotation__created_at", "pk")
        .values_list(
            "retrieval", "annotation__turn", "annotation__annotator__username", "relevance", "annotation__created_at"
        )
    )
    return Rows(tuple(reversed(labels)), tuple(MarkRow(*row) for row in marks), total)

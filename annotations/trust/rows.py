"""Which labels the agreement page is about."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from django.db.models import Q

from annotations.models import Annotation, AnnotationQuerySet, Queue
from assistants.models import Assistant

MAX_LABELS = 20_000
"""Of one page, the newest. The page says when there are more."""


class LabelRow(NamedTuple):
    turn: uuid.UUID
    name: str
    queue: int | None
    verdict: str
    reasons: Sequence[str]
    seconds: float | None


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
        wanted = Q()
        if self.queue is not None:
            wanted &= Q(queue=self.queue)
        if self.since is not None:
            wanted &= Q(created_at__date__gte=self.since)
        if self.until is not None:
            wanted &= Q(created_at__date__lte=self.until)
        if self.people:
            wanted &= Q(annotator__in=self.people)
        return Annotation.objects.of(self.assistant).filter(wanted).order_by()


def label_rows(keys: Iterable[int]) -> dict[uuid.UUID, list[LabelRow]]:
    """Labels by turn, oldest first, in one query."""
    fields = ("turn", "annotator__username", "queue", "verdict", "reasons", "seconds")
    found: dict[uuid.UUID, list[LabelRow]] = {}
    for row in Annotation.objects.filter(pk__in=list(keys)).order_by("created_at", "pk").values_list(*fields):
        label = LabelRow(*row)
        found.setdefault(label.turn, []).append(label)
    return found

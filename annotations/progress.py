"""How far a queue is, and who did what."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Coalesce, JSONObject
from django.utils import timezone

from annotations.models import Annotation, Assignment, Queue, QueueItem


@dataclass(frozen=True)
class QueueProgress:
    queue: Queue
    total: int
    done: int

    @property
    def left(self) -> int:
        return self.total - self.done

    @property
    def percent(self) -> int:
        """Rounded down, so that 100 means all."""
        return 100 * self.done // self.total if self.total else 0

    @cached_property
    def split(self) -> int:
        """Items with enough labels that disagree: a reviewer's turn. A query of its own when it is asked for: every
        label that is sent shows the other two numbers, which an index answers, and looking for the resolutions of
        100,000 items that are done would be most of that request."""
        return QueueItem.objects.filter(queue=self.queue, gold=None).split().count()


COUNTED_SECONDS = 5.0
MANY = 5_000
_counted: dict[int, tuple[float, int, int]] = {}
"""{queue: (when, items, done)} of queues with `MANY` items. Counting 100,000 rows of an index is most of a request, and
a counter in the database would be one row for which everybody who submits waits."""


@dataclass(frozen=True)
class PersonProgress:
    name: str
    labels: int
    today: int
    good: int
    skipped: int
    median_seconds: float | None
    last: datetime | None
    key: int = 0
    open: int = 0
    """Items that they have on their screen now."""
    assigned: bool = False
    """The queue names its people, and they are one of them."""

    @property
    def good_percent(self) -> int | None:
        return round(100 * self.good / self.labels) if self.labels else None


class Median(models.Aggregate):
    """Middle value, computed by the database."""

    function = "percentile_cont"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = models.FloatField()


def queue_progress(queue: Queue) -> QueueProgress:
    """Without items that have known answers: they are no work to be done, and everybody gets them."""
    counts = QueueItem.objects.filter(queue=queue, gold=None).aggregate(
        n=models.Count("pk"), n_done=models.Count("pk", filter=models.Q(done=True))
    )
    return QueueProgress(queue, total=counts["n"], done=counts["n_done"])


def progress_and_today(queue: Queue, annotator: User) -> tuple[QueueProgress, int]:
    """How far the queue is, and how many labels this person has given in it today, in one statement. What others did in
    the last `COUNTED_SECONDS` may be missing in large queues; what this person did today is exact."""
    when, total, done = _counted.get(queue.pk, (-math.inf, 0, 0))
    now = time.monotonic()
    if now - when < COUNTED_SECONDS:
        return QueueProgress(queue, total=total, done=done), labelled_today(queue, annotator)
    own = Queue.objects.filter(pk=queue.pk).values("pk")
    items = QueueItem.objects.filter(queue=models.OuterRef("pk"), gold=None).order_by().values("queue")
    counts = items.annotate(
        found=JSONObject(n=models.Count("pk"), done=models.Count("pk", filter=models.Q(done=True)))
    ).values("found")
    row = own.annotate(found=models.Subquery(counts), today=labelled_today_by(annotator)).order_by().first()
    found, today = ((row["found"] or {}), int(row["today"])) if row else ({}, 0)
    total, done = int(found.get("n", 0)), int(found.get("done", 0))
    if total >= MANY:
        _counted[queue.pk] = (now, total, done)
    return QueueProgress(queue, total=total, done=done), today


def people_progress(queue: Queue) -> list[PersonProgress]:
    """Everybody who has labelled or skipped in the queue, is at an item now, or is meant to be, most labels first."""
    labels = (
        Annotation.objects.current()
        .filter(queue=queue)
        .order_by()
        .values("annotator__username")
        .annotate(
            n=models.Count("pk"),
            today=models.Count("pk", filter=models.Q(created_at__gte=_midnight())),
            good=models.Count("pk", filter=models.Q(verdict="good")),
            median=Median("seconds"),
            last=models.Max("created_at"),
        )
    )
    by_name: dict[str, Any] = {row["annotator__username"]: row for row in labels}
    skips: dict[str, int] = dict(
        Assignment.objects.skipped()
        .filter(item__queue=queue)
        .order_by()
        .values_list("annotator__username")
        .annotate(models.Count("pk"))
    )
    at_work: dict[str, int] = dict(
        Assignment.objects.live()
        .filter(item__queue=queue)
        .order_by()
        .values_list("annotator__username")
        .annotate(models.Count("pk"))
    )
    assigned = set(queue.people.values_list("username", flat=True))
    names = {*by_name, *skips, *at_work, *assigned}
    keys = dict(User.objects.filter(username__in=names).values_list("username", "pk"))
    empty: dict[str, Any] = {"n": 0, "today": 0, "good": 0, "median": None, "last": None}
    people = []
    for name in names:
        row: dict[str, Any] = by_name.get(name) or empty
        people.append(
            PersonProgress(
                name,
                row["n"],
                row["today"],
                row["good"],
                skips.get(name, 0),
                row["median"],
                row["last"],
                keys.get(name, 0),
                at_work.get(name, 0),
                name in assigned,
            )
        )
    return sorted(people, key=lambda person: (-person.labels, person.name))


def labelled_today(queue: Queue, annotator: User) -> int:
    labels = Annotation.objects.current().filter(queue=queue, annotator=annotator, created_at__gte=_midnight())
    return labels.count()


def labelled_today_by(user: User) -> Coalesce:
    """For a list of queues: how many labels this person has given in each today, by the database."""
    labels = Annotation.objects.current().filter(
        queue=models.OuterRef("pk"), annotator=user, created_at__gte=_midnight()
    )
    counted = labels.order_by().values("queue").annotate(n=models.Count("pk")).values("n")
    return Coalesce(models.Subquery(counted), 0)


def _midnight() -> datetime:
    return timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)

"""What waits, how fast it comes and goes, and what was refused: for the page Intake and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Min, Q, QuerySet, Sum
from django.db.models.functions import Length
from django.utils import timezone

from assistants.models import Assistant
from capture.models import IntakeCount, Quarantine, WaitingSpans

PERIODS = ("minute", "hour", "day")
_EVENTS = (IntakeCount.Event.RECEIVED, IntakeCount.Event.SCRUBBED, IntakeCount.Event.REFUSED, IntakeCount.Event.HELD)
Rates = dict[str, dict[str, int]]
"""{event: {period: how many}}"""


@dataclass
class Intake:
    """One assistant now. ``size`` in bytes; ``fullness`` from 0 to 1, of the bound that is nearer."""

    assistant: Assistant
    waiting: int = 0
    held: int = 0
    size: int = 0
    oldest: datetime | None = None
    spans: int = 0
    traces: int = 0
    oldest_span: datetime | None = None
    rates: Rates = field(default_factory=lambda: {event.value: dict.fromkeys(PERIODS, 0) for event in _EVENTS})

    @property
    def fullness(self) -> float:
        items = (self.waiting + self.held) / settings.RATCHET_QUARANTINE_MAX_ITEMS
        return max(items, self.size / settings.RATCHET_QUARANTINE_MAX_BYTES)

    @property
    def percent(self) -> int:
        return min(100, int(self.fullness * 100))

    @property
    def megabytes(self) -> float:
        return self.size / 2**20


@dataclass(frozen=True)
class Refusal:
    """Requests and items of one key that were refused for one reason; ``key`` is empty for imports and our own chat."""

    assistant_id: int
    key: str
    prefix: str
    reason: str
    hour: int
    day: int
    ever: int


def intake_of(assistants: QuerySet[Assistant]) -> list[Intake]:
    """By name; four queries, however many there are. What is counted is bounded by how much may wait."""
    found = {assistant.pk: Intake(assistant) for assistant in assistants.order_by("name")}
    queue = Quarantine.objects.filter(assistant__in=found).order_by().values("assistant_id")
    for row in queue.annotate(
        n_waiting=Count("pk", filter=Q(state=Quarantine.State.WAITING)),
        n_held=Count("pk", filter=Q(state=Quarantine.State.HELD)),
        bytes=Sum(Length("payload")),
        oldest=Min("received_at", filter=Q(state=Quarantine.State.WAITING)),
    ):
        intake = found[row["assistant_id"]]
        intake.waiting, intake.held, intake.size = row["n_waiting"], row["n_held"], row["bytes"] or 0
        intake.oldest = row["oldest"]
    spans = WaitingSpans.objects.filter(assistant__in=found).order_by().values("assistant_id")
    for part in spans.annotate(n=Sum("spans"), n_traces=Count("trace", distinct=True), oldest=Min("received_at")):
        intake = found[part["assistant_id"]]
        intake.spans, intake.traces, intake.oldest_span = part["n"] or 0, part["n_traces"], part["oldest"]
    for recent in _recent(found):
        for period in PERIODS:
            found[recent["assistant_id"]].rates[recent["event"]][period] = recent[f"in_{period}"] or 0
    return list(found.values())


def refusals_of(assistants: Iterable[Assistant], *, limit: int) -> list[Refusal]:
    """Of the last day the most frequent first, then those before; one query."""
    since = _starts()
    refused = IntakeCount.objects.filter(assistant__in=assistants, event=IntakeCount.Event.REFUSED).order_by()
    rows = refused.values("assistant_id", "api_key__name", "api_key__prefix", "reason").annotate(
        hour=Sum("count", filter=Q(minute__gte=since["hour"]), default=0),
        day=Sum("count", filter=Q(minute__gte=since["day"]), default=0),
        ever=Sum("count", filter=Q(minute=None), default=0),
    )
    return [
        Refusal(row["assistant_id"], row["api_key__name"] or "", row["api_key__prefix"] or "", row["reason"],
                row["hour"], row["day"], row["ever"])
        for row in rows.order_by("-day", "-ever", "assistant_id", "api_key__prefix", "reason")[:limit]
    ]  # fmt: skip


def _recent(assistants: Iterable[int]) -> Iterable[Any]:
    since = _starts()
    rows = IntakeCount.objects.filter(
        assistant__in=assistants, minute__gte=since["day"], event__in=[event.value for event in _EVENTS]
    )
    # Of minutes the last whole one: the present one has only begun.
    this_minute = timezone.now().replace(second=0, microsecond=0)
    return (
        rows.order_by()
        .values("assistant_id", "event")
        .annotate(
            in_minute=Sum("count", filter=Q(minute__gte=since["minute"], minute__lt=this_minute)),
            in_hour=Sum("count", filter=Q(minute__gte=since["hour"])),
            in_day=Sum("count"),
        )
    )


def _starts() -> dict[str, datetime]:
    now = timezone.now().replace(second=0, microsecond=0)
    return {
        "minute": now - timedelta(minutes=1),
        "hour": now - timedelta(hours=1),
        "day": now - timedelta(days=1),
    }

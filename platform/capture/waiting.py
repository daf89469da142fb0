"""Spans that wait for the rest of their trace. A model of `capture.models`, in a module of its own."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.postgres.aggregates import BoolOr
from django.db import models

from assistants.models import ApiKey, Assistant


class WaitingSpansQuerySet(models.QuerySet["WaitingSpans"]):
    def due(self, now: datetime) -> models.QuerySet[Any, Any]:
        """Traces that need not wait any longer, longest waiting first, as {assistant_id, trace, bytes}: those whose
        root is there and that were quiet for a moment, those that were quiet for long, those that last for ever. None
        of which a part is held."""
        settle = timedelta(seconds=settings.RATCHET_TRACE_SETTLE_SECONDS)
        wait = timedelta(seconds=settings.RATCHET_TRACE_WAIT_SECONDS)
        grouped = self.order_by().values("assistant_id", "trace")
        return (
            grouped.annotate(
                last=models.Max("received_at"),
                since=models.Min("received_at"),
                rooted=BoolOr("has_root"),
                held=BoolOr(~models.Q(error="")),
                bytes=models.Sum("size"),
            )
            .filter(
                models.Q(rooted=True, last__lte=now - settle)
                | models.Q(last__lte=now - wait)
                | models.Q(since__lte=now - WaitingSpans.LONGEST),
                held=False,
            )
            .order_by("since")
            .values("assistant_id", "trace", "bytes")
        )

    def held(self) -> Self:
        return self.exclude(error="")


class WaitingSpans(models.Model):
    """Spans of one trace out of one request, encrypted, until the trace is whole and becomes a quarantined turn."""

    LONGEST: ClassVar[timedelta] = timedelta(hours=1)
    """However many spans still come."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="+")
    trace = models.CharField(max_length=32, help_text="Trace id in hex.")
    digest = models.CharField(max_length=64, help_text="Keyed hash of the content: the same export counts once.")
    payload = models.BinaryField(help_text="Encrypted JSON.")
    size = models.PositiveIntegerField(help_text="Bytes of the spans, unpacked: those that joining takes.")
    spans = models.PositiveIntegerField()
    has_root = models.BooleanField(default=False)
    error = models.CharField(max_length=300, blank=True, help_text="Why it is held, without any of the text.")
    received_at = models.DateTimeField()

    objects = WaitingSpansQuerySet.as_manager()

    class Meta:
        verbose_name = "waiting trace"
        verbose_name_plural = "waiting traces"
        ordering = ("received_at", "pk")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "trace", "digest"], name="waiting_spans_once")
        ]

    def __str__(self) -> str:
        return f"{self.spans} spans of {self.trace}"

"""What came in and what was refused, counted. A model of `capture.models`, in a module of its own."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from assistants.models import ApiKey, Assistant


class IntakeCount(models.Model):
    """How often something happened to one key's items: in one minute, and (without a minute) ever.

    Web processes and workers add to it in batches (`capture.counting`), so the last seconds may be missing.
    """

    class Event(models.TextChoices):
        RECEIVED = "received", "Received"
        REPEATED = "repeated", "Known already"
        REFUSED = "refused", "Refused"
        SCRUBBED = "scrubbed", "Scrubbed"
        HELD = "held", "Held"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.CASCADE, related_name="+")
    minute = models.DateTimeField(null=True, help_text="Its beginning; none: since ever.")
    event = models.CharField(max_length=8, choices=Event.choices)
    reason = models.CharField(max_length=24, blank=True, help_text="Why it was refused, or what kind of item it was.")
    count = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "intake"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["assistant", "api_key", "minute", "event", "reason"],
                nulls_distinct=False,
                name="intake_count_once",
            )
        ]
        indexes: ClassVar = [models.Index(fields=["minute"], name="intake_count_minute")]

    def __str__(self) -> str:
        return f"{self.event} {self.reason} {self.count}".replace("  ", " ")

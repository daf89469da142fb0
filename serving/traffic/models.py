"""Traffic by the hour and by the day: a page over months reads hundreds of rows, not millions. Models of
`serving.models`."""

from __future__ import annotations

from datetime import date, datetime
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models

from assistants.models import Assistant

OTHER_MODELS = "other models"
"""Under what the turns of names are counted that an hour or a day has too many of."""


class Traffic(models.Model):
    """What one model with one adapter answered in some time. Written by `serving.traffic.counting` alone."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    model = models.CharField(max_length=200, blank=True)
    adapter = models.CharField(max_length=120, blank=True, help_text="Empty: the base model.")
    turns = models.PositiveIntegerField()
    declined = models.PositiveIntegerField()
    up = models.PositiveIntegerField(help_text="Turns with a thumb up.")
    down = models.PositiveIntegerField(help_text="Turns with a thumb down.")
    escalated = models.PositiveIntegerField(help_text="Turns that were handed to a person.")
    prompt_tokens = models.PositiveBigIntegerField()
    completion_tokens = models.PositiveBigIntegerField()
    latencies = ArrayField(models.PositiveIntegerField(), help_text="Turns by latency; see `serving.traffic.latency`.")
    masked = models.JSONField(default=dict, help_text="{type: how many values were masked}")

    class Meta:
        abstract = True

    @property
    def moment(self) -> datetime | date:
        raise NotImplementedError


class TrafficHour(Traffic):
    hour = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "hour", "model", "adapter"], name="traffic_hour_once")
        ]

    @property
    def moment(self) -> datetime:
        return self.hour


class TrafficDay(Traffic):
    """The sum of the hours that begin on a day of `TrafficMark.zone`."""

    day = models.DateField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "day", "model", "adapter"], name="traffic_day_once")
        ]

    @property
    def moment(self) -> date:
        return self.day


class TrafficMark(models.Model):
    """One row: what came before this moment is counted."""

    counted_until = models.DateTimeField(null=True)
    rebuilt_at = models.DateTimeField(null=True, help_text="When the last weeks were counted anew.")
    zone = models.CharField(max_length=64, blank=True, help_text="The time zone whose days are counted.")

"""Which adapter users meet, and who put it there."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from assistants.models import Assistant
from serving.alerts.models import Alert, AlertChannel, AlertDelivery
from serving.drift.models import DriftReport
from serving.erasure.record import Erasure
from serving.experiments.models import Experiment, ExperimentLook, ExposedUnit, Exposure, ShadowAnswer
from serving.suggesting.models import SuggestionRun
from serving.traffic.models import TrafficDay, TrafficHour, TrafficMark
from training.models import Adapter, Evaluation

__all__ = [
    "Alert",
    "AlertChannel",
    "AlertDelivery",
    "Deployment",
    "DriftReport",
    "Erasure",
    "Experiment",
    "ExperimentLook",
    "ExposedUnit",
    "Exposure",
    "Promotion",
    "ShadowAnswer",
    "SuggestionRun",
    "TrafficDay",
    "TrafficHour",
    "TrafficMark",
]


class Deployment(models.Model):
    """What is live for one assistant. No adapter means the base model; the previous one stays warm for rolling back."""

    assistant = models.OneToOneField(Assistant, on_delete=models.CASCADE, related_name="deployment")
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    previous = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    has_previous = models.BooleanField(default=False, help_text="There is something to roll back to (maybe the base).")
    experiment = models.ForeignKey(
        Experiment, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="That runs now."
    )
    changed_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.assistant}: {self.adapter or 'base model'}"


class Promotion(models.Model):
    """The audit trail: what went live and came back, and each step of an experiment on the way. Without an actor a rule
    of the experiment took the step.
    """

    class Action(models.TextChoices):
        SHADOW = "shadow", "Answers in shadow"
        CANARY = "canary", "Canary"
        AB = "ab", "A/B"
        PROMOTE = "promote", "Promoted"
        TAKE_BACK = "take_back", "Candidate taken back"
        ROLL_BACK = "roll_back", "Rolled back"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="promotions")
    action = models.CharField(max_length=10, choices=Action.choices)
    from_adapter = models.ForeignKey(Adapter, null=True, on_delete=models.PROTECT, related_name="+")
    to_adapter = models.ForeignKey(Adapter, null=True, on_delete=models.PROTECT, related_name="+")
    evaluation = models.ForeignKey(Evaluation, null=True, on_delete=models.PROTECT, related_name="promotions")
    experiment = models.ForeignKey(Experiment, null=True, on_delete=models.SET_NULL, related_name="steps")
    share = models.FloatField(null=True, help_text="Of the conversations or users, for the candidate.")
    overrides_gate = models.BooleanField(default=False)
    reason = models.TextField(blank=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-at",)
        indexes: ClassVar = [models.Index(fields=["assistant", "-at"], name="promotion_newest")]

    def __str__(self) -> str:
        return f"{self.action} {self.to_adapter or 'base model'}"

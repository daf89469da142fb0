"""Which adapter users meet, and who put it there."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from assistants.models import Assistant
from serving.erasure.record import Erasure
from training.models import Adapter, Evaluation

__all__ = ["Deployment", "Erasure", "Promotion"]


class Deployment(models.Model):
    """What is live for one assistant. No adapter means the base model; the previous one stays warm for rolling back."""

    assistant = models.OneToOneField(Assistant, on_delete=models.CASCADE, related_name="deployment")
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    previous = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    has_previous = models.BooleanField(default=False, help_text="There is something to roll back to (maybe the base).")
    changed_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.assistant}: {self.adapter or 'base model'}"


class Promotion(models.Model):
    """The audit trail of what went live."""

    class Action(models.TextChoices):
        PROMOTE = "promote", "Promoted"
        ROLL_BACK = "roll_back", "Rolled back"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="promotions")
    action = models.CharField(max_length=10, choices=Action.choices)
    from_adapter = models.ForeignKey(Adapter, null=True, on_delete=models.PROTECT, related_name="+")
    to_adapter = models.ForeignKey(Adapter, null=True, on_delete=models.PROTECT, related_name="+")
    evaluation = models.ForeignKey(Evaluation, null=True, on_delete=models.PROTECT, related_name="promotions")
    overrides_gate = models.BooleanField(default=False)
    reason = models.TextField(blank=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-at",)
        indexes: ClassVar = [models.Index(fields=["assistant", "-at"], name="promotion_newest")]

    def __str__(self) -> str:
        return f"{self.action} {self.to_adapter or 'base model'}"

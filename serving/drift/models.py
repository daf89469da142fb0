"""What users ask now, beside what the live adapter was trained on. Models of `serving.models`."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant
from training.models import Adapter, DatasetVersion


class DriftReport(BackgroundWork):
    """One window of questions against the questions of one dataset. Holds numbers and keys of turns, no text: what it
    shows is read from the turns that are still there."""

    needs_device = False

    class Verdict(models.TextChoices):
        SAME = "same", "No change shown"
        DRIFT = "drift", "Users ask something else"
        TOO_FEW = "too_few", "Too few questions"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="drift_reports")
    adapter = models.ForeignKey(Adapter, null=True, on_delete=models.CASCADE, related_name="+")
    dataset = models.ForeignKey(DatasetVersion, null=True, on_delete=models.CASCADE, related_name="+")
    since = models.DateTimeField()
    until = models.DateTimeField()
    verdict = models.CharField(max_length=8, choices=Verdict.choices, blank=True)
    alarm = models.BooleanField(default=False, help_text="Drift in this window and in the one before it.")
    sentence = models.TextField(blank=True)
    results = models.JSONField(default=dict, help_text="See serving.drift.report.")
    now = models.JSONField(default=list, help_text="[[turn, how surely it is new], …], the surest first.")
    before = models.JSONField(default=list, help_text="Keys of the dataset's rows that it was compared with.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-until", "-pk")
        indexes: ClassVar = [models.Index(fields=["assistant", "-until"], name="drift_newest")]

    def __str__(self) -> str:
        return f"Drift {self.since:%Y-%m-%d} to {self.until:%Y-%m-%d}"

    def perform(self) -> None:
        from serving.drift.report import perform

        perform(self)

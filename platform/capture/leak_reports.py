"""What a leak audit found. A model of `capture.models`, in a module of its own."""

from __future__ import annotations

from typing import ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from assistants.models import Assistant


class LeakReportQuerySet(models.QuerySet["LeakReport"]):
    def accepted_keys(self, assistant: Assistant) -> frozenset[str]:
        """Findings of this assistant that a privacy officer has accepted: they block nothing any more."""
        rows = self.filter(assistant=assistant).exclude(overridden_at=None).values_list("keys", flat=True)
        return frozenset(key for keys in rows for key in keys)

    def blocking(self) -> Self:
        return self.filter(verdict=LeakReport.Verdict.BLOCKED, overridden_at=None)


class LeakReport(models.Model):
    """One audit: field, row and type of every hit, never a value. Kept for as long as what it speaks for."""

    class Verdict(models.TextChoices):
        CLEAN = "clean", "Clean"
        BLOCKED = "blocked", "Blocked"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="leak_reports")
    subject = models.CharField(max_length=200, help_text="What was audited: “Dataset 3”, “Export of turns”.")
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    findings = models.JSONField(
        default=list, help_text="[{row, field, type, by, score, turn}]; by: scan, canary, deny list, conversation."
    )
    doubtful = models.JSONField(default=list, help_text="The same, of what the policy itself is not sure of: no block.")
    counts = models.JSONField(default=dict, help_text="{type: hits}, the ones that are not listed too.")
    keys = ArrayField(
        models.CharField(max_length=32), default=list, help_text="Keyed hashes of what was found, one per value."
    )
    rows = models.PositiveIntegerField(default=0)
    texts = models.PositiveIntegerField(default=0, help_text="Distinct texts that were read.")
    seconds = models.FloatField(default=0.0)
    content_hash = models.CharField(max_length=64, blank=True, help_text="Of the dataset, or of what was exported.")
    policy_digest = models.CharField(max_length=64, help_text="Of the strict policy that read the texts.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    overridden_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    overridden_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True, help_text="Why it was let through.")

    objects = LeakReportQuerySet.as_manager()

    class Meta:
        verbose_name = "leak audit"
        ordering = ("-created_at",)
        indexes: ClassVar = [models.Index(fields=["assistant", "-created_at"], name="leak_report_newest")]

    def __str__(self) -> str:
        return f"Leak audit {self.pk} of {self.subject}"

    @property
    def blocks(self) -> bool:
        return self.verdict == self.Verdict.BLOCKED and self.overridden_at is None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

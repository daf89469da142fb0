"""What programs and judges say of turns. Models of `annotations.models`, in a module of their own: a machine's label is
never an `Annotation`, so nothing that counts people's labels can count it by accident."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from annotations.choices import Reason, Verdict
from assistants.models import ApiKey, Assistant
from capture.models import Turn

MAX_EXPLANATION = 4_000
MAX_NAME = 120
MAX_VERSION = 60


class MachineKind(models.TextChoices):
    """As traces call annotators; the third kind, HUMAN, labels on the labelling page and is no machine."""

    LLM = "LLM", "Language model"
    CODE = "CODE", "Program"


class MachineLabelQuerySet(models.QuerySet["MachineLabel"]):
    def of(self, assistant: Assistant) -> Self:
        return self.filter(assistant=assistant)

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-pk")

    def older_than(self, moment: datetime, pk: uuid.UUID) -> Self:
        """What comes after that label in `newest_first`."""
        return self.filter(
            models.Q(created_at__lt=moment) | models.Q(created_at=moment, pk__lt=pk), created_at__lte=moment
        )

    def standing(self) -> Self:
        """The last word of each machine (kind and name) on each turn, whatever its version then was."""
        return self.order_by("turn_id", "kind", "name", "-created_at", "-pk").distinct("turn_id", "kind", "name")

    def standing_by_version(self) -> Self:
        """The last word of each version of each machine on each turn."""
        return self.order_by("turn_id", "kind", "name", "version", "-created_at", "-pk").distinct(
            "turn_id", "kind", "name", "version"
        )


class MachineLabel(models.Model):
    """One label of a program or judge. Rows are only added; a later one of the same machine stands for the earlier."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="machine_labels")
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="machine_labels")
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="+")
    client_id = models.CharField(max_length=200, help_text="As `capture.vault.stored_id` keeps it.")
    payload_digest = models.CharField(max_length=64, help_text="Keyed: tells a repeat from a conflict.")
    kind = models.CharField(max_length=4, choices=MachineKind.choices)
    name = models.CharField(max_length=MAX_NAME)
    version = models.CharField(max_length=MAX_VERSION, blank=True)
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True)
    score = models.FloatField(null=True, blank=True, help_text="0 to 1; 1 is best.")
    reasons = ArrayField(models.CharField(max_length=24, choices=Reason.choices), default=list, blank=True)
    explanation = models.TextField(blank=True, max_length=MAX_EXPLANATION, help_text="Scrubbed.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MachineLabelQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "client_id"], name="machine_label_once"),
            models.CheckConstraint(
                condition=~models.Q(verdict="") | models.Q(score__isnull=False), name="machine_label_says_something"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["assistant", "-created_at", "-id"], name="machine_label_page"),
            models.Index(fields=["-created_at", "-id"], name="machine_label_newest"),  # of several assistants
            models.Index(fields=["assistant", "name", "version"], name="machine_label_names"),  # what a list offers
            models.Index(fields=["turn", "kind", "name", "-created_at"], name="machine_label_standing"),
            # Agreement with people: most of what programs send are scores.
            models.Index(fields=["turn"], condition=~models.Q(verdict=""), name="machine_label_verdicts"),
        ]

    def __str__(self) -> str:
        return f"{self.machine}: {self.verdict or self.score}"

    @property
    def machine(self) -> str:
        return f"{self.name} {self.version}".strip()

    @property
    def reason_labels(self) -> list[str]:
        return [str(Reason(reason).label) for reason in self.reasons]

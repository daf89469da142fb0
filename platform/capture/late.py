"""What comes after a turn: updates of it, and metrics on it. Models of `capture.models`, in a module of their own."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.indexes import BrinIndex
from django.core.validators import RegexValidator
from django.db import models

from assistants.models import ApiKey, Assistant

METRIC_PATTERN = r"[a-z][a-z0-9_.-]{0,59}"
"""Plain enough to be a label, and no place for anybody's address."""
SAME = "same"
MAX_METRICS = 100
"""Names of one assistant: a name made of an id would make one for every turn."""


class Metric(models.Model):
    """A measure that a chatbot posts as feedback beside what people said: ``resolved``, ``minutes_saved``.

    The first post under a name declares it; what it holds is fixed from then on, so that values can be compared.
    """

    class Holds(models.TextChoices):
        BOOLEAN = "boolean", "true or false"
        NUMBER = "number", "a number"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="metrics")
    name = models.CharField(
        max_length=60,
        validators=[
            RegexValidator(rf"\A{METRIC_PATTERN}\Z", "Lower-case letters, digits and _ . - only, a letter first.")
        ],
    )
    holds = models.CharField(max_length=8, choices=Holds.choices)
    description = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "name"], name="metric_once")]

    def __str__(self) -> str:
        return self.name


class TurnUpdate(models.Model):
    """That a key changed a turn after it was posted: which fields, from what to what. Rows are only added, but for one
    of a turn at most whose ``changes`` are {`SAME`: {field: when somebody said once more what stood there}}."""

    turn = models.ForeignKey("capture.Turn", on_delete=models.CASCADE, related_name="updates")
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="+")
    changes = models.JSONField(
        help_text="{field: [before, after]}; of tags how many were added, of metadata the keys that were set."
    )
    known_at = models.DateTimeField(help_text="When it became known: as posted, else when it came. The latest counts.")
    received_at = models.DateTimeField()

    class Meta:
        ordering = ("received_at", "pk")
        indexes: ClassVar = [BrinIndex(fields=["received_at"], autosummarize=True, name="turn_update_came")]

    def __str__(self) -> str:
        return ", ".join(sorted(self.changes))

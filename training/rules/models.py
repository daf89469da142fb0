"""When an assistant should be trained again, and what a rule has proposed."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from assistants.models import Assistant


class RetrainingRule(models.Model):
    """One per assistant; off until somebody turns it on. It never promotes: what it trains goes through the gate."""

    class Action(models.TextChoices):
        PROPOSE = "propose", "Propose it to the admins"
        START = "start", "Build the dataset and train"

    assistant = models.OneToOneField(Assistant, on_delete=models.CASCADE, related_name="retraining_rule")
    enabled = models.BooleanField(default=False)
    action = models.CharField(max_length=8, choices=Action.choices, default=Action.PROPOSE)
    min_labels = models.PositiveIntegerField(
        null=True,
        blank=True,
        default=100,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text="New resolved labels since the last dataset. Empty: labels alone never fire it.",
    )
    min_documents = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text="Documents that came or changed since the last dataset. Empty: never.",
    )
    every_days = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(365)],
        help_text="Days since the last run, when anything at all has changed. 7: weekly. Empty: never.",
    )
    on_drift = models.BooleanField(default=True, help_text="When the drift report raises its alarm.")
    rest_days = models.PositiveSmallIntegerField(
        default=1,
        validators=[MaxValueValidator(365)],
        help_text="At least so many days between two runs or proposals of the rule.",
    )
    updated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"Retraining of {self.assistant}"


class RetrainingProposal(models.Model):
    """One firing of a rule: proposed, or on its way from dataset to run."""

    class State(models.TextChoices):
        OPEN = "open", "Waits for a person"
        BUILDING = "building", "Dataset is built"
        TRAINING = "training", "Adapter is trained"
        DONE = "done", "Adapter is there"
        DISMISSED = "dismissed", "Dismissed"
        FAILED = "failed", "Failed"

    ACTIVE = (State.OPEN, State.BUILDING, State.TRAINING)

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="retraining_proposals")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    reasons = models.JSONField(default=list, help_text="[{kind, sentence}]: what fired it.")
    dataset = models.ForeignKey(
        "training.DatasetVersion", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    run = models.ForeignKey("training.Run", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    error = models.TextField(blank=True, help_text="One sentence with what to do.")
    created_at = models.DateTimeField(auto_now_add=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-created_at",)
        constraints: ClassVar = [
            # The sweep of two workers, and a person who presses at the same moment: one retraining at a time.
            models.UniqueConstraint(
                fields=["assistant"],
                condition=models.Q(state__in=["open", "building", "training"]),
                name="retraining_one_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"Retraining {self.pk}"

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE

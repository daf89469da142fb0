"""Spot checks of written questions. Models of `training.models`, in a module of their own."""

from __future__ import annotations

from typing import ClassVar, Self

from django.conf import settings
from django.db import models


class SpotCheckQuerySet(models.QuerySet["SpotCheck"]):
    def of(self, synthesis: object) -> Self:
        return self.filter(item__synthesis=synthesis)

    def open(self) -> Self:
        return self.filter(verdict="")

    def done(self) -> Self:
        return self.exclude(verdict="")


class SpotCheck(models.Model):
    """One kept item of a random sample, and what a person says of it. One person looks at each."""

    class Verdict(models.TextChoices):
        GOOD = "good", "Good"
        BAD = "bad", "Bad"

    class Reason(models.TextChoices):
        READS_BADLY = "reads_badly", "No person would ask it like that"
        WRONG_ANSWER = "wrong_answer", "The answer does not answer it"
        WRONG_KIND = "wrong_kind", "It should be declined, or should not be"
        USELESS = "useless", "Nobody would ask this here"

    item = models.OneToOneField("training.SyntheticItem", on_delete=models.CASCADE, related_name="spot_check")
    position = models.PositiveIntegerField(help_text="Order in the sample: random, of the synthesis's seed.")
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True, help_text="Empty: to be looked at.")
    reason = models.CharField(max_length=12, choices=Reason.choices, blank=True)
    checked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    checked_at = models.DateTimeField(null=True, blank=True)

    objects = SpotCheckQuerySet.as_manager()

    class Meta:
        ordering = ("position", "pk")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(reason="") | models.Q(verdict="bad"), name="spot_check_reason_of_bad"
            )
        ]

    def __str__(self) -> str:
        return f"Spot check {self.pk}"

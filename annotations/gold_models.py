"""Items with a known answer. A model of `annotations.models`, in a module of its own."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models

from annotations.choices import Reason, Verdict


class GoldItem(models.Model):
    """An item whose answer a reviewer knows: everybody gets it once, and it looks like any other item.

    What was expected is written here and not read from the resolution, so that accuracy stays comparable when a
    reviewer settles the turn anew.
    """

    item = models.OneToOneField("annotations.QueueItem", on_delete=models.CASCADE, related_name="gold")
    verdict = models.CharField(max_length=4, choices=Verdict.choices)
    reasons = ArrayField(models.CharField(max_length=24, choices=Reason.choices), default=list, blank=True)
    declines = models.BooleanField(default=False, help_text="The answer to learn declines.")
    relevant_ranks = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    adjudicates = models.BooleanField(
        default=False, help_text="The mark made the resolution the reviewer's word; without it the labels decide again."
    )
    marked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    marked_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.item} is {self.verdict}"

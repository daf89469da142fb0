"""Rows of the adapter registry beside `training.models.Adapter` itself."""

from __future__ import annotations

from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class AdapterMerge(BackgroundWork):
    """An adapter written into its base: a full model folder, for servers that load no adapters."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="merges")
    adapter = models.ForeignKey("training.Adapter", on_delete=models.CASCADE, related_name="merges")
    folder = models.CharField(max_length=500, blank=True, help_text="Relative to the state folder.")
    size_bytes = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True, help_text="Of the merged folder, as of a base.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Merge {self.pk} of {self.adapter}"

    def perform(self) -> None:
        from training.registry.merging import perform

        perform(self)

"""Each making of an assistant's vector index: one row of background work, and what was measured afterwards."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class VectorIndex(BackgroundWork):
    """The latest row with an ``ef_search`` says how widely the assistant's index is searched."""

    needs_device = False  # the database does it

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="vector_indexes")
    chunks = models.PositiveIntegerField(default=0, help_text="Of the assistant when it was begun.")
    last_chunk = models.BigIntegerField(default=0, help_text="The newest of them: later ones have changed the index.")
    ef_search = models.PositiveSmallIntegerField(null=True, help_text="How widely it is searched.")
    recall = models.FloatField(null=True, help_text="Recall@10 against exact search, with this ef_search.")
    size = models.PositiveBigIntegerField(default=0, help_text="Bytes.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        verbose_name_plural = "vector indexes"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["assistant"],
                condition=models.Q(state__in=[BackgroundWork.State.QUEUED, BackgroundWork.State.RUNNING]),
                name="vectorindex_one_at_work",
            )
        ]

    def __str__(self) -> str:
        return f"Vector index {self.pk}"

    def perform(self) -> None:
        from knowledge.indexing import perform

        perform(self)

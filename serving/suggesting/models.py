"""A pass over a queue's items with the live model. A model of `serving.models`, in a module of its own."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from annotations.models import Queue
from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class SuggestionRun(BackgroundWork):
    """What is live answers the open items of one queue that have no suggestion of it yet. The answers themselves are
    `LiveAnswer`s; what is missing is what is left to do, so a pass that ended early is gone on with by the next."""

    needs_device: ClassVar[bool] = False  # the engine has a process of its own

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="suggestion_runs")
    queue = models.ForeignKey(Queue, on_delete=models.CASCADE, related_name="suggestion_runs")
    agent = models.CharField(max_length=300, blank=True, help_text="Who was asked.")
    answered = models.PositiveIntegerField(default=0)
    stopped = models.CharField(max_length=200, blank=True, help_text="Why it ended before all were asked.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["queue"], condition=models.Q(state__in=["queued", "running"]), name="suggestion_run_once"
            )
        ]

    def __str__(self) -> str:
        return f"Suggestions for {self.queue}"

    def perform(self) -> None:
        from serving.suggesting.asking import perform

        perform(self)

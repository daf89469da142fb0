"""One erasure: what was asked, what a dry run found, what went. A model of `serving.models`, in a module of its own.

The same row is the dry run, the act and the receipt. What the scope names (a user, an id, words) is encrypted while it
is needed and destroyed when the act is done; the receipt carries a keyed hash of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class Erasure(BackgroundWork):
    """``confirmed_at`` tells a dry run (nothing is touched) from the act itself."""

    needs_device = False
    LOOK_IS_GOOD_FOR: ClassVar[timedelta] = timedelta(days=1)
    """After that a dry run says too little about what an erasure would meet, and its scope is destroyed."""

    class Kind(models.TextChoices):
        USER = "user", "A user"
        CONVERSATION = "conversation", "A conversation"
        TURN = "turn", "Single turns"
        SEARCH = "search", "What a search finds"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="erasures")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    scope_digest = models.CharField(max_length=64, help_text="Keyed hash of the scope: the same scope, the same hash.")
    sealed = models.BinaryField(null=True, editable=False, help_text="The scope, encrypted; destroyed when it is done.")
    plan = models.JSONField(default=dict, help_text="What the dry run found: see serving.erasure.survey.")
    confirmed_at = models.DateTimeField(null=True, blank=True)
    confirmed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    confirmed_name = models.CharField(max_length=150, blank=True, help_text="Kept when the account goes.")
    reason = models.TextField(blank=True)
    counts = models.JSONField(default=dict, help_text="{table: rows that went}, written with each batch.")
    affected = models.JSONField(default=dict, help_text="{datasets, adapters, runs, downloads} that held some of it.")
    receipt = models.JSONField(default=dict, help_text="The signed receipt; empty until everything is done.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Erasure {self.pk}"

    @property
    def is_dry(self) -> bool:
        return self.confirmed_at is None

    @property
    def is_done(self) -> bool:
        return bool(self.receipt)

    @property
    def can_confirm(self) -> bool:
        """A dry run that has ended, not too long ago."""
        fresh = timezone.now() - self.created_at < self.LOOK_IS_GOOD_FOR
        return self.is_dry and self.state == self.State.SUCCEEDED and fresh and self.sealed is not None

    @property
    def can_go_on(self) -> bool:
        """An act that stopped before its end: nothing that is gone comes back, so it can only be finished."""
        return not self.is_dry and not self.is_done and not self.is_active

    def add(self, counts: dict[str, int]) -> None:
        """Counts what went. Call it in the transaction that erases, so that a killed act never tells half.

        Raises:
            WorkLost: another process goes on with it; the transaction must be rolled back.
        """
        for name, count in counts.items():
            if count:
                self.counts[name] = self.counts.get(name, 0) + count
        self.keep("counts")

    def perform(self) -> None:
        from serving.erasure import acting, survey

        if self.is_dry:
            survey.perform(self)
        else:
            acting.perform(self)

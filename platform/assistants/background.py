"""Work that takes longer than a request: one row is the truth, a detached process does it, a sweep repairs it.

django-q2's ORM broker has no heartbeat, runs again what outlives `retry`, and cannot cancel. So a queued job only
calls `launch`, which starts ``manage.py perform`` as a process of its own and returns; the row below says who may work
on it (fencing token), whether it lives (heartbeat), how far it is (progress) and whether it should stop (cancel).
Killed at any instant, it is found by `sweep`, queued again and resumed from what it had stored; it is never done twice,
because every write checks the token.
"""

from __future__ import annotations

import os
import socket
import uuid
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

import psutil
from django.conf import settings
from django.db import models
from django.utils import timezone

HEARTBEAT_SECONDS = 5
STALE_AFTER = timedelta(seconds=45)
"""Nine missed beats: a swapping machine is slow, not dead."""


class WorkCancelled(Exception):
    """Raised inside the performing process when somebody asked for the work to stop."""


class WorkLost(Exception):
    """Raised inside the performing process when another process holds the token now: stop at once, write nothing."""


M = TypeVar("M", bound="BackgroundWork")


class BackgroundQuerySet(models.QuerySet[M]):
    def active(self) -> Self:
        return self.filter(state__in=[BackgroundWork.State.QUEUED, BackgroundWork.State.RUNNING])

    def stale(self) -> Self:
        limit = timezone.now() - STALE_AFTER
        return self.filter(state=BackgroundWork.State.RUNNING, heartbeat_at__lt=limit)


class BackgroundWork(models.Model):
    """Base of runs, evaluations, dataset builds and syntheses."""

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    max_attempts: ClassVar[int] = 3
    """Crashes before it is given up; a failure with an error message is final at once."""

    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED, db_index=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    token = models.UUIDField(null=True, editable=False)
    pid = models.IntegerField(null=True, editable=False)
    pid_created = models.FloatField(null=True, editable=False, help_text="Start time of the process: pids are reused.")
    host = models.CharField(max_length=200, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, editable=False)
    cancel_requested_at = models.DateTimeField(null=True, editable=False)
    progress = models.JSONField(default=dict, editable=False, help_text="{done, total, stage, eta_seconds, …}")
    error = models.TextField(blank=True, editable=False, help_text="One sentence with what to do.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        abstract = True

    def perform(self) -> None:
        """Does the work in the performing process. Calls `beat` at least every `HEARTBEAT_SECONDS`; must be able to
        start again from what an earlier attempt has stored. An exception fails the work with its message."""
        raise NotImplementedError

    @property
    def is_active(self) -> bool:
        return self.state in (self.State.QUEUED, self.State.RUNNING)

    @property
    def can_cancel(self) -> bool:
        return self.is_active and self.cancel_requested_at is None

    @property
    def seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()

    def claim(self) -> bool:
        """Queued → running for this process. False when somebody else has it, or it was cancelled meanwhile."""
        token, now = uuid.uuid4(), timezone.now()
        claimed = type(self)._default_manager.filter(
            pk=self.pk, state=self.State.QUEUED, cancel_requested_at=None
        ).update(
            state=self.State.RUNNING,
            token=token,
            attempt=models.F("attempt") + 1,
            pid=os.getpid(),
            pid_created=psutil.Process().create_time(),
            host=socket.gethostname(),
            heartbeat_at=now,
            started_at=now,
            error="",
        )
        if claimed:
            self.refresh_from_db()
        return bool(claimed)

    def beat(self, **progress: Any) -> None:
        """Shows life and progress.

        Raises:
            WorkLost: another process took over (this one was thought dead).
            WorkCancelled: somebody asked to stop.
        """
        changes: dict[str, Any] = {"heartbeat_at": timezone.now()}
        if progress:
            self.progress = {**self.progress, **progress}
            changes["progress"] = self.progress
        if not self._mine().update(**changes):
            raise WorkLost
        if self._mine().exclude(cancel_requested_at=None).exists():
            raise WorkCancelled

    def finish(self, state: State, error: str = "") -> bool:
        """Ends the work; False when the token is no longer ours."""
        done = self._mine().update(state=state, error=error, finished_at=timezone.now(), token=None)
        if done:
            self.refresh_from_db()
        return bool(done)

    def request_cancel(self) -> bool:
        """Queued work is cancelled at once; running work at its next beat."""
        now = timezone.now()
        manager = type(self)._default_manager
        if manager.filter(pk=self.pk, state=self.State.QUEUED).update(
            state=self.State.CANCELLED, cancel_requested_at=now, finished_at=now
        ):
            self.refresh_from_db()
            return True
        asked = manager.filter(pk=self.pk, state=self.State.RUNNING).update(cancel_requested_at=now)
        self.refresh_from_db()
        return bool(asked)

    def _mine(self) -> models.QuerySet[Self]:
        return type(self)._default_manager.filter(pk=self.pk, token=self.token, state=self.State.RUNNING)

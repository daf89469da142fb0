"""Work that takes longer than a request: one row is the truth, a detached process does it, a sweep repairs it.

django-q2's ORM broker has no heartbeat, runs again what outlives `retry`, and cannot cancel. So `launch` queues a job
that only starts ``manage.py perform`` as a process of its own and returns; the row below says who may work on it
(fencing token), whether it lives (heartbeat), how far it is (progress) and whether it should stop (cancel). Killed at
any instant, it is found by `sweep`, queued again and resumed from what it had stored; it is never done twice, because
every write checks the token. How one process performs one piece of work: `assistants.performing`.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

import psutil
from django.apps import apps
from django.conf import settings
from django.db import models
from django.utils import timezone

from assistants.schedules import ensure_schedule

logger = logging.getLogger(__name__)

LAUNCH_CLUSTER = "train"
"""The queue whose worker only starts processes."""
CANCEL_PATIENCE = timedelta(seconds=30)
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
    needs_device: ClassVar[bool] = True
    """Works the processor (or GPU) hard: on one machine such work runs one after the other."""

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

    @classmethod
    def elsewhere(cls) -> models.Q:
        """Rows of this model that need no device although others of it do (they are done by another machine)."""
        return models.Q(pk__in=[])

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
        claimed = (
            type(self)
            ._default_manager.filter(pk=self.pk, state=self.State.QUEUED, cancel_requested_at=None)
            .update(
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

    def keep(self, *fields: str) -> None:
        """Writes fields of this row as they are here.

        Raises:
            WorkLost: another process took over; what is there is its.
        """
        if not self._mine().update(**{name: getattr(self, name) for name in fields}):
            raise WorkLost

    def hold(self) -> None:
        """For what is written to other rows: makes sure, as the last act of a transaction, that the work is still ours,
        and that nobody takes it over before the transaction ends. Last, since heartbeats and cancels wait meanwhile.

        Raises:
            WorkLost: another process took over; the transaction must be rolled back.
        """
        if not self._mine().select_for_update().values_list("pk"):
            raise WorkLost

    def finish(self, state: State, error: str = "") -> bool:
        """Ends the work; False when the token is no longer ours."""
        done = self._mine().update(state=state, error=error, finished_at=timezone.now(), token=None)
        if done:
            self.refresh_from_db()
        return bool(done)

    def release(self) -> bool:
        """Gives the work back unfinished because this process has to stop, not because the work failed: no attempt is
        counted."""
        given = self._mine().update(
            state=self.State.QUEUED, token=None, attempt=models.F("attempt") - 1, pid=None, pid_created=None
        )
        if given:
            self.refresh_from_db()
        return bool(given)

    def take_back(self) -> bool:
        """Ends the attempt of a process that is gone: queued again, or failed after `max_attempts`, or cancelled when
        that was wanted. The token guards it: whoever comes second changes nothing. True when it is queued again."""
        now = timezone.now()
        changes: dict[str, Any] = {"token": None, "pid": None, "pid_created": None}
        if self.cancel_requested_at is not None:
            changes |= {"state": self.State.CANCELLED, "finished_at": now}
        elif self.attempt >= self.max_attempts:
            stage = self.progress.get("stage") or "starting"
            changes |= {
                "state": self.State.FAILED,
                "finished_at": now,
                "error": f"It stopped without a word {self.attempt} times, last while {stage}. The machine may be "
                "short of memory; the end of its log shows where it stopped.",
            }
        else:
            changes["state"] = self.State.QUEUED
        changed = self._mine().update(**changes)
        self.refresh_from_db()
        return bool(changed) and self.state == self.State.QUEUED

    def process(self) -> psutil.Process | None:
        """The living process that performs this work on this machine."""
        if self.pid is None or self.host != socket.gethostname():
            return None
        try:
            found = psutil.Process(self.pid)
            alive = found.status() != psutil.STATUS_ZOMBIE and abs(found.create_time() - (self.pid_created or 0)) < 1
        except psutil.Error:
            return None
        return found if alive else None

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


def launch(work: BackgroundWork, *, foreground: bool | None = None) -> None:
    """Starts queued work: by the worker of the launch queue, in a process of its own.

    ``foreground`` (default: the setting RATCHET_FOREGROUND) performs it here and now, for commands and tests that have
    no worker. Launching twice is harmless: the second process finds nothing to claim.
    """
    if settings.RATCHET_FOREGROUND if foreground is None else foreground:
        from assistants.performing import perform_here

        perform_here(work)
        return
    from django_q.tasks import async_task

    ensure_sweep()
    async_task("assistants.jobs.start", work._meta.label, work.pk, cluster=LAUNCH_CLUSTER, save=False)


def ensure_sweep() -> None:
    """Schedules `sweep` for each minute. A schedule that is overdue runs as soon as a worker starts."""
    ensure_schedule("Repair background work", "assistants.jobs.sweep", 1)


def work_models() -> list[type[BackgroundWork]]:
    return [model for model in apps.get_models() if issubclass(model, BackgroundWork)]


def sweep() -> None:
    """Repairs what no process will (work whose process died, hangs, or ignores that it was cancelled), and launches
    what waits.

    Work of another machine is judged by its heartbeat alone; its token is taken away, so that a process that was only
    slow writes nothing any more.
    """
    for model in work_models():
        for work in model._default_manager.filter(state=BackgroundWork.State.RUNNING):
            _repair(work)
    launch_waiting()


def launch_waiting() -> None:
    """Launches queued work that nobody took: the oldest that needs the device, unless some runs, and all that needs
    none."""
    heavy: list[BackgroundWork] = []
    device_is_busy = False
    for model in work_models():
        queued = model._default_manager.filter(state=BackgroundWork.State.QUEUED).order_by("created_at")
        if not model.needs_device:
            for work in queued:
                launch(work)
            continue
        for work in queued.filter(model.elsewhere()):
            launch(work)
        running = model._default_manager.filter(state=BackgroundWork.State.RUNNING)
        device_is_busy |= running.exclude(model.elsewhere()).exists()
        heavy += queued.exclude(model.elsewhere())[:1]
    if heavy and not device_is_busy:
        launch(min(heavy, key=lambda work: work.created_at))


def _repair(work: BackgroundWork) -> None:
    from assistants.performing import stop_process

    now = timezone.now()
    here = work.host == socket.gethostname()
    process = work.process()
    silent = work.heartbeat_at is None or now - work.heartbeat_at > STALE_AFTER
    deaf = work.cancel_requested_at is not None and now - work.cancel_requested_at > CANCEL_PATIENCE
    dead = process is None if here else silent
    if not (dead or silent or deaf):
        return
    if process is not None and not stop_process(process):
        return  # somebody's own shell performs it in the foreground: not ours to kill
    logger.warning("%s %s: %s", work._meta.label, work.pk, "died" if dead else "hangs" if silent else "ignores cancel")
    work.take_back()

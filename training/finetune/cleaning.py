"""What runs leave on disk, and when it goes.

A run that made its adapter drops its checkpoints at once. One that failed or was cancelled keeps them, so that somebody
can let it go on, for RATCHET_KEEP_RUN_DAYS; then checkpoints and the files with its rows (texts of users) go. The rows
can be written again from the dataset at any time.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from assistants.schedules import DAILY, ensure_schedule
from training.erasing import ROW_FILES
from training.finetune.bases import from_state
from training.models import Run

WORK = "work"


def ensure_cleaning() -> None:
    """Schedules `training.jobs.clean_runs` for each day."""
    ensure_schedule("Clean up after runs", "training.jobs.clean_runs", DAILY)


def folder_of(run: Run) -> Path | None:
    return from_state(run.folder) if run.folder else None


def has_checkpoints(run: Run) -> bool:
    folder = folder_of(run)
    return folder is not None and (folder / WORK).is_dir()


def kept_bytes(run: Run) -> int:
    """Size of what `clean` would delete."""
    folder = folder_of(run)
    if folder is None or run.is_active:
        return 0
    paths = [folder / name for name in ROW_FILES]
    paths += list((folder / WORK).rglob("*")) if (folder / WORK).is_dir() else []
    return sum(path.stat().st_size for path in paths if path.is_file())


def clean(run: Run) -> int:
    """Deletes checkpoints and row files of a run that has ended; returns how many bytes went. Nothing of one that is
    at work."""
    folder = folder_of(run)
    if folder is None:
        return 0
    freed = kept_bytes(run)
    with transaction.atomic():
        # Claimed or queued again meanwhile: then these files are in use. Locked, so that it is not while they go.
        ended = Run.objects.filter(pk=run.pk).exclude(state__in=[Run.State.QUEUED, Run.State.RUNNING])
        if ended.select_for_update().first() is None:
            return 0
        shutil.rmtree(folder / WORK, ignore_errors=True)
        for name in ROW_FILES:
            (folder / name).unlink(missing_ok=True)
    return freed


def clean_old_runs() -> int:
    """Cleans runs that ended RATCHET_KEEP_RUN_DAYS ago or earlier; returns how many bytes went."""
    limit = timezone.now() - timedelta(days=settings.RATCHET_KEEP_RUN_DAYS)
    ended = Run.objects.filter(finished_at__lt=limit).exclude(folder="").order_by("pk")
    return sum(clean(run) for run in ended.iterator(chunk_size=200) if not run.is_active)

"""What becomes of files that wait for a person: taken, discarded, or forgotten when nobody decides."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from assistants.background import BackgroundWork, launch
from assistants.models import Assistant
from assistants.services import audit
from knowledge.models import Upload, UploadedFile
from knowledge.upload_models import UploadedFileQuerySet

_ACTIVE = (BackgroundWork.State.QUEUED, BackgroundWork.State.RUNNING)


class NothingToDecide(ValueError):
    """The upload is being worked on, or none of its files waits; the message says which."""


@transaction.atomic
def take(*, upload: Upload, files: Collection[int] | None = None, actor: User | None = None, via: str = "page") -> int:
    """Takes files that wait: those of a preview, and those that were left when the upload was cancelled or failed.

    Args:
        files: keys of `UploadedFile`; all that wait when not given.

    Returns:
        How many are taken in now.

    Raises:
        NothingToDecide: see there.
    """
    chosen = _open(upload, files)
    # A preview named the document that it would change; on a file that waits it would mean that it has.
    count = chosen.update(outcome=UploadedFile.Outcome.WAITING, preview=None, sentence="", document=None)
    if not count:
        raise NothingToDecide("None of these files waits any more.")
    # What is not chosen stays to be decided.
    upload.files.filter(outcome=UploadedFile.Outcome.WAITING).exclude(pk__in=_keys(upload, files)).update(
        outcome=UploadedFile.Outcome.READY
    )
    _requeue(upload)
    _note(upload, actor, "documents.taken", count, via)
    transaction.on_commit(lambda: launch(upload))
    return count


@transaction.atomic
def discard(
    *, upload: Upload, files: Collection[int] | None = None, actor: User | None = None, via: str = "page"
) -> int:
    """Empties files that wait. As `take`."""
    count = _open(upload, files).update(
        outcome=UploadedFile.Outcome.DISCARDED, preview=None, data=b"", sentence="Discarded; nothing of it was stored."
    )
    if not count:
        raise NothingToDecide("None of these files waits any more.")
    _note(upload, actor, "documents.discarded", count, via)
    return count


def forget_undecided(assistant: Assistant) -> int:
    """Empties what nobody decided about for RATCHET_UPLOAD_DAYS."""
    days = settings.RATCHET_UPLOAD_DAYS
    old = UploadedFile.objects.open().filter(
        upload__assistant=assistant, upload__finished_at__lt=timezone.now() - timedelta(days=days)
    )
    return (
        old.exclude(upload__state__in=_ACTIVE)
        .order_by()
        .update(
            outcome=UploadedFile.Outcome.DISCARDED,
            preview=None,
            data=b"",
            sentence=f"Discarded: nobody decided about it for {days} days.",
        )
    )


def _keys(upload: Upload, files: Collection[int] | None) -> list[int]:
    return list(upload.files.values_list("pk", flat=True)) if files is None else list(files)


def _open(upload: Upload, files: Collection[int] | None) -> UploadedFileQuerySet:
    """Raises NothingToDecide while the upload is worked on."""
    locked = Upload.objects.select_for_update().get(pk=upload.pk)
    if locked.is_active:
        raise NothingToDecide("It is being worked on. Wait until it is done, or cancel it.")
    rows = upload.files.open().order_by()
    return rows if files is None else rows.filter(pk__in=list(files))


def _requeue(upload: Upload) -> None:
    """The row is locked and rests: see `_open`."""
    Upload.objects.filter(pk=upload.pk).update(
        state=BackgroundWork.State.QUEUED, preview=False, attempt=0, token=None, pid=None, pid_created=None,
        cancel_requested_at=None, started_at=None, finished_at=None, progress={}, error="",
    )  # fmt: skip
    upload.refresh_from_db()


def _note(upload: Upload, actor: User | None, action: str, count: int, via: str) -> None:
    details = {"files": count, "via": via}
    audit(assistant=upload.assistant, actor=actor, action=action, target=str(upload), details=details)

"""Files that were handed in, waiting to be taken in or for somebody to look at what would be taken."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class Upload(BackgroundWork):
    """Files that a person or a program handed in, taken in one by one by a process of its own.

    A preview does everything but store: its files wait, encrypted, until somebody takes or discards them.
    """

    needs_device = False
    """A few documents embed in seconds: they must not wait behind a training."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="uploads")
    preview = models.BooleanField(default=False, help_text="Only shows what would be taken in.")
    via = models.CharField(max_length=160, blank=True, help_text="page, or the name of the key that sent it.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Upload {self.pk}"

    def perform(self) -> None:
        from knowledge.uploads import perform

        perform(self)


class UploadedFileQuerySet(models.QuerySet["UploadedFile"]):
    def open(self) -> Self:
        """Whose content is still here: they wait, or somebody decides about them."""
        return self.filter(outcome__in=UploadedFile.OPEN)


class UploadedFile(models.Model):
    """One file of an upload and what became of it."""

    class Outcome(models.TextChoices):
        WAITING = "waiting", "Waiting"
        READY = "ready", "To be decided"
        LOADED = "loaded", "Loaded"
        UNCHANGED = "unchanged", "Unchanged"
        UNPACKED = "unpacked", "Unpacked"
        DISCARDED = "discarded", "Discarded"
        FAILED = "failed", "Failed"

    OPEN: ClassVar[tuple[str, ...]] = ("waiting", "ready")
    STORED: ClassVar[tuple[str, ...]] = ("waiting", "loaded", "unchanged")
    """With a document: it says what this file says. One that waits is stored, and not yet noted."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=500, help_text="Masked.")
    archive = models.CharField(max_length=500, blank=True, help_text="The archive it came in; masked.")
    size = models.PositiveBigIntegerField()
    data = models.BinaryField(
        help_text="Encrypted: the path as it was given, a NUL byte, the file. Emptied when it has been taken in."
    )
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.WAITING)
    sentence = models.TextField(blank=True)
    preview = models.JSONField(
        null=True, blank=True, help_text="What would be taken: see knowledge.previews. Masked; emptied when decided."
    )
    document = models.ForeignKey("knowledge.Document", null=True, on_delete=models.SET_NULL, related_name="+")

    objects = UploadedFileQuerySet.as_manager()

    class Meta:
        ordering = ("pk",)
        indexes: ClassVar = [models.Index(fields=["upload", "outcome"], name="uploadedfile_outcome")]

    def __str__(self) -> str:
        return self.path

    @property
    def shown(self) -> dict[str, Any]:
        """The preview, or nothing."""
        return self.preview or {}

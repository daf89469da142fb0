"""What a document was before: one row for each version, who brought it and when."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models


class DocumentVersion(models.Model):
    """One version of a document. The text of the newest is the document's own; an older one keeps its text here as long
    as it was masked by the same policy as the newest (`knowledge.storing`)."""

    document = models.ForeignKey("knowledge.Document", on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    title = models.CharField(max_length=300)
    digest = models.CharField(max_length=64, help_text="SHA-256 of its masked text.")
    text = models.TextField(blank=True, help_text="Masked; empty for the newest, and where it was not kept.")
    size = models.PositiveBigIntegerField(default=0, help_text="Bytes of the file.")
    pages = models.PositiveIntegerField(null=True, blank=True)
    chunks = models.PositiveIntegerField(default=0)
    chunks_kept = models.PositiveIntegerField(default=0, help_text="Of them with the vectors that were there already.")
    masked = models.JSONField(default=dict, blank=True)
    masking_digest = models.CharField(max_length=64, blank=True)
    via = models.CharField(max_length=160, blank=True, help_text="page, command, or the name of the key that sent it.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-number",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["document", "number"], name="documentversion_number_once")
        ]

    def __str__(self) -> str:
        return f"version {self.number}"

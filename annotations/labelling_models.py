"""What the labelling page keeps beside labels. Models of `annotations.models`, in a module of their own."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from capture.models import Turn
from knowledge.models import Chunk

MAX_MISSED = 20
"""Passages that one label may add."""


class MissedPassage(models.Model):
    """A passage of the knowledge base that an annotator found and retrieval had not brought: data for retrieval.

    The text stays where it belongs, in the document: ``digest`` finds it again when the document has been loaded anew
    (`chunk` is empty then), and a text that was taken out of the knowledge base is not kept here.
    """

    annotation = models.ForeignKey("annotations.Annotation", on_delete=models.CASCADE, related_name="missed")
    chunk = models.ForeignKey(Chunk, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    digest = models.CharField(max_length=64, help_text="Of the chunk's text, as Chunk.digest.")
    source = models.CharField(max_length=500, help_text="Path of the document.")
    title = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = "passage missed by retrieval"
        verbose_name_plural = "passages missed by retrieval"
        ordering = ("pk",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["annotation", "digest"], name="missed_passage_once")]

    def __str__(self) -> str:
        return self.title or self.source


class SavedDraft(models.Model):
    """The form of one item as somebody left it, encrypted: what is typed is scrubbed when it becomes a label, and
    nobody may read it before."""

    item = models.ForeignKey("annotations.QueueItem", on_delete=models.CASCADE, related_name="drafts")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    sealed = models.BinaryField(help_text="Encrypted JSON.")
    saved_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["item", "annotator"], name="saved_draft_once")]

    def __str__(self) -> str:
        return f"draft of {self.annotator} on {self.item}"


class SuggestionView(models.Model):
    """That somebody saw what machines say of a turn, and what they had decided by then."""

    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="suggestion_views")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    decided = models.CharField(max_length=4, blank=True, help_text="The verdict chosen by then; empty: none.")
    shown_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["turn", "annotator"], name="suggestion_view_once")]

    def __str__(self) -> str:
        return f"{self.annotator} saw suggestions"


class LiveAnswer(models.Model):
    """What the model that was live said to a turn when it was asked again with the passages of then: a suggestion for
    those who label it. One for each turn, the latest; it goes with the turn, and later masks reach its text."""

    turn = models.OneToOneField(Turn, on_delete=models.CASCADE, related_name="live_answer")
    agent = models.CharField(max_length=300, help_text="Who answered: the adapter's name, or the base model's.")
    version = models.CharField(max_length=64, help_text="Digest of the prompt format that it was asked with.")
    text = models.TextField(blank=True, help_text="With [n] citations of passages.")
    declined = models.BooleanField(default=False)
    score = models.FloatField(
        null=True, help_text="Share of its words that stand in the passages, 0 to 1: a hint. Empty when it declines."
    )
    problem = models.CharField(max_length=200, blank=True, help_text="Why there is no answer.")
    asked_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.agent} on {self.turn_id}"

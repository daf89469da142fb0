"""Rows of retrieval: named versions of an assistant's settings, and how often each word stands in its chunks."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings as django_settings
from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class RetrievalConfiguration(models.Model):
    """One version of how an assistant searches. Never changed; which one is active follows from its digest."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="retrieval_configurations")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=120)
    note = models.TextField(blank=True, max_length=2000)
    settings = models.JSONField(help_text="knowledge.configuration.RetrievalSettings as a dict.")
    around = models.JSONField(help_text="Embedder, chunker, words and glossary when it was saved.")
    digest = models.CharField(max_length=16, help_text="What turns carry as their retrieval configuration.")
    created_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("assistant", "-number")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "number"], name="retrieval_number_once"),
            models.UniqueConstraint(fields=["assistant", "digest"], name="retrieval_digest_once"),
        ]

    def __str__(self) -> str:
        return f"{self.number}. {self.name}"


class RetrievalCheck(BackgroundWork):
    """One self-test: the vector index against exact search, on a sample of an assistant's chunks."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="retrieval_checks")
    result = models.JSONField(default=dict, editable=False, help_text="knowledge.selftest.SelfTest as a dict.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Self-test {self.pk}"

    def perform(self) -> None:
        from knowledge.selftest import perform

        perform(self)


class Lexicon(models.Model):
    """When the words of an assistant's chunks were counted, and over how many chunks."""

    assistant = models.OneToOneField(Assistant, on_delete=models.CASCADE, related_name="+", primary_key=True)
    chunks = models.PositiveIntegerField()
    average_length = models.FloatField(help_text="Distinct words of a chunk.")
    counted_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"words of {self.chunks} chunks"


class LexemeCount(models.Model):
    """In how many chunks a word stands. The word itself is not kept, only its hash."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+", db_index=False)
    lexeme = models.BigIntegerField(help_text="hashtextextended(word, 0)")
    chunks = models.PositiveIntegerField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "lexeme"], name="lexeme_once")]

    def __str__(self) -> str:
        return f"{self.lexeme}: {self.chunks}"

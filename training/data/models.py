"""Curated sets from files, and previews of recipes. Models of `training.models`, in a module of their own."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant


class CuratedSet(BackgroundWork):
    """Examples that somebody wrote elsewhere: a file, scrubbed on its way in, for the sources of a recipe."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="curated_sets")
    name = models.CharField(max_length=120)
    sealed = models.BinaryField(null=True, editable=False, help_text="The file, encrypted; destroyed when it is read.")
    rows = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=list, help_text="[{line, why}] of refused rows, the first ones.")
    masked = models.PositiveIntegerField(default=0, help_text="Values that scrubbing has masked.")
    content_hash = models.CharField(max_length=64, blank=True, help_text="SHA-256 over its rows in order.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "name"], name="curated_set_name_once")]

    def __str__(self) -> str:
        return self.name

    def perform(self) -> None:
        from training.data.imports import perform

        perform(self)


class CuratedRow(models.Model):
    """One example of a curated set, in the fields of `Example`. ``sentences`` is empty where only ``rejected`` is
    known."""

    set = models.ForeignKey(CuratedSet, on_delete=models.CASCADE, related_name="examples")
    position = models.PositiveIntegerField(help_text="Line of the file, from 1.")
    kind = models.CharField(max_length=8)
    history = models.JSONField(default=list)
    question = models.TextField()
    contexts = models.JSONField(default=list)
    evidence = models.JSONField(default=list)
    sentences = models.JSONField(default=list)
    rejected = models.TextField(blank=True)
    vector = models.BinaryField(null=True, editable=False, help_text="Of the history-aware question, half precision.")

    class Meta:
        ordering = ("set", "position")
        constraints: ClassVar = [models.UniqueConstraint(fields=["set", "position"], name="curated_row_position_once")]

    def __str__(self) -> str:
        return self.question[:80]


class FrozenWords(models.Model):
    """Which words the rows of a version have, as keyed hashes (`training.data.corpus_words`); only of versions whose
    recipe asks for invented values. A row of its own: lists of versions need not read it."""

    dataset = models.OneToOneField(
        "training.DatasetVersion", primary_key=True, on_delete=models.CASCADE, related_name="frozen_words"
    )
    hashes = models.BinaryField(editable=False)

    def __str__(self) -> str:
        return f"Words of dataset {self.dataset_id}"


class DatasetPreview(BackgroundWork):
    """What a recipe would give, counted, with some of its rows; nothing is frozen. ``result`` names rows by what they
    are made of and holds no text: what is erased is gone from here too."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="dataset_previews")
    recipe = models.JSONField(default=dict)
    benchmark = models.ForeignKey("training.Benchmark", null=True, on_delete=models.CASCADE, related_name="+")
    synthesis = models.ForeignKey("training.Synthesis", null=True, on_delete=models.CASCADE, related_name="+")
    result = models.JSONField(
        default=dict, help_text="{funnel, mix, stats, blocked, samples: [{turn | item | row, …}]}"
    )

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Preview {self.pk}"

    @property
    def funnel(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.result.get("funnel", [])
        return found

    def perform(self) -> None:
        from training.data.preview import perform

        perform(self)

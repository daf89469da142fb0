"""Written questions and spot checks of them. Models of `training.models`, in a module of their own."""

from __future__ import annotations

from typing import ClassVar, Self

from django.conf import settings
from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant
from knowledge.models import Chunk
from training.choices import Kind


class Synthesis(BackgroundWork):
    """One writing of questions from documents, with its funnel."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="syntheses")
    wanted = models.PositiveIntegerField(default=200, help_text="Questions to keep.")
    seed = models.PositiveIntegerField(default=1)
    plan = models.JSONField(default=dict, help_text="training.synthesis.plan.Plan as a dict; empty: its defaults.")
    personas = models.JSONField(default=list, help_text="[{path, text}]: whom the teacher was asked to speak for.")
    funnel = models.JSONField(default=dict, help_text="{written, dropped: {filter: n}, kept}")
    stopped_by = models.CharField(max_length=300, blank=True, help_text="Why it ended, in one sentence.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        verbose_name_plural = "syntheses"

    def __str__(self) -> str:
        return f"Synthesis {self.pk}"

    def perform(self) -> None:
        from training.synthesis.generate import perform

        perform(self)


class SyntheticItem(models.Model):
    """One written question with its answer and where it came from; a dropped one says which filter dropped it."""

    class Form(models.TextChoices):
        SINGLE = "single", "Single passage"
        SEVERAL = "several", "Several passages"
        FOLLOW_UP = "follow_up", "Follow-up"
        COMPARISON = "comparison", "Comparison"
        NEAR_MISS = "near_miss", "Near miss"
        OUT_OF_SCOPE = "out_of_scope", "Out of scope"
        COUNTERFACTUAL = "counterfactual", "Counterfactual"
        MISSING = "missing", "Missing passage"

    synthesis = models.ForeignKey(Synthesis, on_delete=models.CASCADE, related_name="items")
    chunk = models.ForeignKey(Chunk, null=True, on_delete=models.SET_NULL, related_name="+")
    source = models.CharField(max_length=500)
    sentence = models.PositiveIntegerField(help_text="Index in the chunk of the sentence that answers.")
    question = models.TextField()
    history = models.JSONField(default=list, help_text="[{role, content}] before the question.")
    response = models.TextField()
    answer = models.JSONField(
        default=list, help_text="[{text, refs: [[rank, sentence], …]}]; empty: the response, from contexts' gold."
    )
    form = models.CharField(max_length=16, choices=Form.choices, default=Form.SINGLE)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.ANSWER)
    dropped_by = models.CharField(max_length=40, blank=True, help_text="Empty: kept.")
    note = models.CharField(max_length=300, blank=True, help_text="What the filter saw, in a few words.")
    contexts = models.JSONField(default=dict, help_text="What retrieval brought: as a benchmark item's condition.")
    lineage = models.JSONField(
        default=dict,
        help_text="{writer, model, prompt, persona, style, chunks: [[chunk, path, sentence]], tokens, seconds, …}",
    )
    task = models.CharField(max_length=64, blank=True, help_text="Names the piece of work, so that it is done once.")
    attempt = models.PositiveSmallIntegerField(default=1)
    vector = models.BinaryField(null=True, editable=False, help_text="Of the history-aware question, half precision.")

    class Meta:
        ordering = ("pk",)
        constraints: ClassVar = [
            # A resumed synthesis writes each piece of work once per attempt.
            models.UniqueConstraint(
                fields=["synthesis", "task", "attempt"], condition=~models.Q(task=""), name="synthetic_item_once"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["synthesis", "dropped_by"], name="synthetic_item_funnel")]

    def __str__(self) -> str:
        return self.question[:80]


class SpotCheckQuerySet(models.QuerySet["SpotCheck"]):
    def of(self, synthesis: object) -> Self:
        return self.filter(item__synthesis=synthesis)

    def open(self) -> Self:
        return self.filter(verdict="")

    def done(self) -> Self:
        return self.exclude(verdict="")


class SpotCheck(models.Model):
    """One kept item of a random sample, and what a person says of it. One person looks at each."""

    class Verdict(models.TextChoices):
        GOOD = "good", "Good"
        BAD = "bad", "Bad"

    class Reason(models.TextChoices):
        READS_BADLY = "reads_badly", "No person would ask it like that"
        WRONG_ANSWER = "wrong_answer", "The answer does not answer it"
        WRONG_KIND = "wrong_kind", "It should be declined, or should not be"
        USELESS = "useless", "Nobody would ask this here"

    item = models.OneToOneField("training.SyntheticItem", on_delete=models.CASCADE, related_name="spot_check")
    position = models.PositiveIntegerField(help_text="Order in the sample: random, of the synthesis's seed.")
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True, help_text="Empty: to be looked at.")
    reason = models.CharField(max_length=12, choices=Reason.choices, blank=True)
    checked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    checked_at = models.DateTimeField(null=True, blank=True)

    objects = SpotCheckQuerySet.as_manager()

    class Meta:
        ordering = ("position", "pk")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(reason="") | models.Q(verdict="bad"), name="spot_check_reason_of_bad"
            )
        ]

    def __str__(self) -> str:
        return f"Spot check {self.pk}"

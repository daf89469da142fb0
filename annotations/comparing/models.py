"""Blind pairwise comparison: a round of pairs of answers, and what people chose. Models of `annotations.models`.

A pair holds its texts itself: rounds come from rooms that this one may not import (evaluations), and what people have
judged must not change under them.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models

from assistants.models import Assistant
from capture.models import Turn


class Choice(models.TextChoices):
    CANDIDATE = "candidate", "The candidate"
    BASELINE = "baseline", "The baseline"
    BOTH_GOOD = "both_good", "Both good"
    BOTH_BAD = "both_bad", "Both bad"


class Aspect(models.TextChoices):
    """What decided a choice."""

    FACTS = "facts", "Facts"
    SUPPORT = "support", "Support by the sources"
    COMPLETE = "complete", "Completeness"
    POINT = "point", "To the point"
    CITATION = "citation", "Citations"
    DECLINING = "declining", "Declining or answering"
    TONE = "tone", "Tone or format"


class ComparisonRound(models.Model):
    """Pairs of answers of two arms, for some people to judge without knowing which is whose."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="comparison_rounds")
    name = models.CharField(max_length=120)
    source = models.CharField(max_length=40, help_text="What the answers are from, e.g. evaluation.")
    source_id = models.PositiveBigIntegerField()
    held_out = models.CharField(
        max_length=120, blank=True, help_text="Benchmark that the questions are from: training on them spoils it."
    )
    candidate_arm = models.CharField(max_length=60)
    baseline_arm = models.CharField(max_length=60)
    questions = models.PositiveIntegerField(help_text="That both arms answered.")
    differing = models.PositiveIntegerField(help_text="Of these, with different answers: what pairs are drawn from.")
    seed = models.PositiveBigIntegerField(editable=False, help_text="Decides who sees which answer on which side.")
    people = models.ManyToManyField(
        settings.AUTH_USER_MODEL, blank=True, related_name="+", help_text="Nobody named: all reviewers and admins."
    )
    closed = models.BooleanField(default=False, help_text="Nobody judges any more.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)
        verbose_name = "comparison"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "name"], name="comparison_round_name_once")
        ]
        indexes: ClassVar = [models.Index(fields=["source", "source_id"], name="comparison_round_source")]

    def __str__(self) -> str:
        return self.name


class ComparisonPairQuerySet(models.QuerySet["ComparisonPair"]):
    def unjudged_by(self, person: User) -> Self:
        """What is left for this person, in order."""
        chosen = ComparisonChoice.objects.current().filter(pair=models.OuterRef("pk"), person=person)
        return self.filter(~models.Exists(chosen)).order_by("position")

    def preferred(self, *, people: int = 1) -> Self:
        """Pairs on which everybody who judged them chose the same answer, at least ``people`` of them; with ``winner``
        (`Choice`) and ``judges``. A tie agrees with nothing."""

        def count(*choices: Choice) -> models.Count:
            current = models.Q(choices__withdrawn_at=None)
            return models.Count("choices", filter=current & models.Q(choices__choice__in=choices))

        counted = self.annotate(
            judges=count(*Choice), for_candidate=count(Choice.CANDIDATE), for_baseline=count(Choice.BASELINE)
        ).annotate(
            winner=models.Case(
                models.When(for_candidate=models.F("judges"), then=models.Value(Choice.CANDIDATE.value)),
                models.When(for_baseline=models.F("judges"), then=models.Value(Choice.BASELINE.value)),
            )
        )
        return counted.filter(judges__gte=max(people, 1), winner__isnull=False)


class ComparisonPair(models.Model):
    """One question with its contexts and two answers. ``*_text`` is what people read, ``*_completion`` what the model
    wrote, ``prompt`` the messages that both were asked with."""

    round = models.ForeignKey(ComparisonRound, on_delete=models.CASCADE, related_name="pairs")
    position = models.PositiveIntegerField()
    key = models.CharField(max_length=80, help_text="Of the question in its source.")
    turn = models.ForeignKey(  # an erasure takes the turn, and this with it
        Turn, null=True, on_delete=models.CASCADE, related_name="comparison_pairs", help_text="Where users asked it."
    )
    stratum = models.CharField(max_length=120, blank=True)
    history = models.JSONField(default=list)
    question = models.TextField()
    contexts = models.JSONField(default=list, help_text="[{rank, title, source, text}]")
    prompt = models.JSONField(default=list, help_text="[{role, content}]")
    candidate_text = models.TextField(blank=True)
    baseline_text = models.TextField(blank=True)
    candidate_completion = models.TextField(blank=True)
    baseline_completion = models.TextField(blank=True)

    objects = ComparisonPairQuerySet.as_manager()

    class Meta:
        ordering = ("round", "position")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["round", "position"], name="comparison_pair_position_once")
        ]

    def __str__(self) -> str:
        return self.question[:80]

    def candidate_is_left(self, person_id: int) -> bool:
        """On which side this person sees the candidate: a coin per person and pair, the same at every look."""
        return bool(hashlib.sha256(f"{self.round.seed}:{self.pk}:{person_id}".encode()).digest()[0] & 1)


class ComparisonChoiceQuerySet(models.QuerySet["ComparisonChoice"]):
    def current(self) -> Self:
        return self.filter(withdrawn_at=None)


class ComparisonChoice(models.Model):
    """What one person chose of one pair, and how it was laid before them."""

    pair = models.ForeignKey(ComparisonPair, on_delete=models.CASCADE, related_name="choices")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="comparison_choices")
    choice = models.CharField(max_length=10, choices=Choice.choices)
    candidate_left = models.BooleanField(help_text="The candidate stood on the left.")
    aspects = ArrayField(models.CharField(max_length=12, choices=Aspect.choices), default=list, blank=True)
    seconds = models.FloatField(null=True, blank=True, help_text="Time on the page.")
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="Taken back; kept, not counted.")

    objects = ComparisonChoiceQuerySet.as_manager()

    class Meta:
        ordering = ("created_at",)
        constraints: ClassVar = [
            # Two tabs, a double submit: one current choice of a person on a pair.
            models.UniqueConstraint(
                fields=["pair", "person"], condition=models.Q(withdrawn_at=None), name="comparison_choice_once"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["person", "-created_at"], name="comparison_choice_mine")]  # undo

    def __str__(self) -> str:
        return f"{self.person}: {self.choice}"

"""What belongs to an evaluation besides its answers: declared gates, replays, knowledge scores, judged pairs."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant
from capture.models import Turn


class GateDeclaration(models.Model):
    """What a candidate must show, one version after the other. The newest one counts; none is ever changed."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="gate_declarations")
    version = models.PositiveIntegerField()
    rule = models.JSONField(help_text="training.evaluation.gate.GateRule as a dict.")
    reason = models.CharField(max_length=500, blank=True, help_text="Why it was changed.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-version",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "version"], name="gate_declaration_version_once")
        ]

    def __str__(self) -> str:
        return f"Gate {self.version} of {self.assistant}"


class Replay(BackgroundWork):
    """Logged questions asked again, old answer beside new."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="replays")
    adapter = models.ForeignKey(
        "training.Adapter", null=True, blank=True, on_delete=models.CASCADE, related_name="+", help_text="Empty: base."
    )
    chosen = models.CharField(max_length=20, help_text="Which turns: training.replay.services.Chosen.")
    base_digest = models.CharField(max_length=64, blank=True)
    prompt_digest = models.CharField(max_length=16, blank=True)
    results = models.JSONField(default=dict, help_text="{mode: {measure: {value, low, high, n}}}")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Replay {self.pk} with {self.adapter or 'the base model'}"

    def perform(self) -> None:
        from training.replay.runner import perform

        perform(self)


class ReplayAnswer(models.Model):
    """One logged question asked again in one mode. Made empty when the replay starts, filled as it goes: what is still
    empty is what is left to do. It goes with its turn when that is erased."""

    class Mode(models.TextChoices):
        STORED = "stored", "Stored passages (the model alone)"
        FRESH = "fresh", "Fresh retrieval (the system)"

    replay = models.ForeignKey(Replay, on_delete=models.CASCADE, related_name="answers")
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="replay_answers")
    mode = models.CharField(max_length=6, choices=Mode.choices)
    completion = models.TextField(blank=True)
    text = models.TextField(blank=True, help_text="With [n] citations of passages.")
    declined = models.BooleanField(default=False)
    sources = models.JSONField(default=list, help_text="What was retrieved: [{rank, title, source}]")
    measures = models.JSONField(default=dict, help_text="{metric: number}")
    problem = models.CharField(max_length=300, blank=True, help_text="Why it could not be asked.")
    answered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("pk",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["replay", "turn", "mode"], name="replay_answer_once")]

    def __str__(self) -> str:
        return f"{self.mode} of {self.turn_id}"


class EvaluationUnit(models.Model):
    """A slice of the questions of one arm under one condition: what is asked in one call of an engine, so that the same
    neighbours are asked together whoever asks. Made when the evaluation starts to answer, gone when it has ended."""

    evaluation = models.ForeignKey("training.Evaluation", on_delete=models.CASCADE, related_name="units")
    number = models.PositiveIntegerField(help_text="In the order in which they are asked.")
    arm = models.CharField(max_length=12)
    condition = models.CharField(max_length=16)
    start = models.PositiveIntegerField(help_text="Place of its first question among those with this condition.")
    token = models.UUIDField(null=True, help_text="Of the work that asks it; free where no running work has it.")
    done = models.BooleanField(default=False)

    class Meta:
        ordering = ("number",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["evaluation", "arm", "condition", "start"], name="evaluation_unit_once")
        ]

    def __str__(self) -> str:
        return f"Unit {self.number}"


class EvaluationHelper(BackgroundWork):
    """One more process that asks an evaluation's questions, with a model of its own."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    evaluation = models.ForeignKey("training.Evaluation", on_delete=models.CASCADE, related_name="helpers")
    place = models.PositiveSmallIntegerField(help_text="From 1; the evaluation's own process is none of them.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["evaluation", "place"], name="evaluation_helper_once")]

    def __str__(self) -> str:
        return f"Helper {self.place} of {self.evaluation}"

    def perform(self) -> None:
        from training.evaluation.sharing import help_out

        help_out(self)


class KnowledgeScore(BackgroundWork):
    """How much each layer's feed-forward block moves what would be said: with and without the adapter."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="knowledge_scores")
    evaluation = models.ForeignKey("training.Evaluation", on_delete=models.CASCADE, related_name="knowledge_scores")
    questions = models.PositiveIntegerField(default=20)
    results = models.JSONField(default=dict, help_text="{arms: {arm: [score of each layer]}, answers, tokens}")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Knowledge score {self.pk}"

    def perform(self) -> None:
        from training.evaluation.knowledge import perform

        perform(self)


class Judging(BackgroundWork):
    """A model that compares the candidate's answers with today's, blind and in both orders."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="judgings")
    evaluation = models.ForeignKey("training.Evaluation", on_delete=models.CASCADE, related_name="judgings")
    model = models.CharField(max_length=200)
    pairs = models.PositiveIntegerField(default=50)
    results = models.JSONField(default=dict, help_text="Win rate, consistency, and agreement with people.")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Judging {self.pk} by {self.model}"

    def perform(self) -> None:
        from training.evaluation.judge import perform

        perform(self)


class Judgement(models.Model):
    """One reply of the judge to one pair in one order. ``digest`` names model, instructions and texts: the same is
    never asked twice."""

    judging = models.ForeignKey(Judging, on_delete=models.CASCADE, related_name="judgements")
    item = models.ForeignKey("training.BenchmarkItem", on_delete=models.CASCADE, related_name="+")
    candidate_first = models.BooleanField()
    choice = models.CharField(max_length=10, help_text="candidate, baseline, tie or unreadable.")
    digest = models.CharField(max_length=64, db_index=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["judging", "item", "candidate_first"], name="judgement_once")
        ]

    def __str__(self) -> str:
        return f"{self.choice} on {self.item_id}"

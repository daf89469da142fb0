"""A candidate beside what is live: who met which arm, what came of it. Models of `serving.models`."""

from __future__ import annotations

from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from assistants.models import Assistant
from capture.models import Turn
from serving.experiments.plan import Plan, read_plan
from training.models import Adapter, Evaluation


class ArmName(models.TextChoices):
    CONTROL = "control", "What is live"
    CANDIDATE = "candidate", "The candidate"


class ExperimentQuerySet(models.QuerySet["Experiment"]):
    def running(self) -> Self:
        return self.exclude(stage=Experiment.Stage.ENDED)


class Experiment(models.Model):
    """One candidate on its way from nowhere to live. `Deployment.experiment` names the one that runs now.

    ``epoch`` counts the times at which the share changed: outcomes are compared within one, since units that came under
    different shares differ in more than the arm.
    """

    class Stage(models.TextChoices):
        SHADOW = "shadow", "Shadow"
        CANARY = "canary", "Canary"
        AB = "ab", "A/B"
        ENDED = "ended", "Ended"

    class Ending(models.TextChoices):
        PROMOTED = "promoted", "Went live"
        TAKEN_BACK = "taken_back", "Taken back by a person"
        GUARDRAIL = "guardrail", "Taken back by a rule"
        STOPPED = "stopped", "Stopped without a verdict"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="experiments")
    candidate = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="experiments")
    control = models.ForeignKey(
        Adapter, null=True, blank=True, on_delete=models.PROTECT, related_name="+", help_text="Empty: the base model."
    )
    evaluation = models.ForeignKey(Evaluation, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    override_reason = models.TextField(blank=True, help_text="Why it meets users without a passed gate.")
    stage = models.CharField(max_length=8, choices=Stage.choices, default=Stage.SHADOW)
    share = models.FloatField(default=0.0, help_text="Of the units, for the candidate.")
    epoch = models.PositiveSmallIntegerField(default=0)
    plan = models.JSONField(default=dict, help_text="serving.experiments.plan.Plan as a dict.")
    latency_limit_ms = models.PositiveIntegerField(null=True, help_text="What counts as slow: p95 before the start.")
    started_at = models.DateTimeField(default=timezone.now)
    stage_since = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    ending = models.CharField(max_length=10, choices=Ending.choices, blank=True)
    reason = models.TextField(blank=True, help_text="Why it ended, in a sentence.")
    notice = models.CharField(max_length=300, blank=True, help_text="Why it does not go on by itself just now.")
    seen_feedback = models.BigIntegerField(null=True, editable=False, help_text="Newest row that a pass has seen.")
    seen_update = models.BigIntegerField(null=True, editable=False, help_text="The same, of updates of turns.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )

    objects = ExperimentQuerySet.as_manager()

    class Meta:
        ordering = ("-started_at",)
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["assistant"], condition=~models.Q(stage="ended"), name="experiment_running_once"
            )
        ]

    def __str__(self) -> str:
        return f"Experiment {self.pk}: {self.candidate}"

    @property
    def rules(self) -> Plan:
        return read_plan(self.plan)

    @property
    def is_running(self) -> bool:
        return self.stage != self.Stage.ENDED

    @property
    def shows_candidate(self) -> bool:
        """Whether users meet the candidate."""
        return self.stage in (self.Stage.CANARY, self.Stage.AB)


class ExposureQuerySet(models.QuerySet["Exposure"]):
    def waiting(self) -> Self:
        """Whose turn is not known: not stored yet, or never."""
        return self.filter(turn=None)


class Exposure(models.Model):
    """One question that was answered in an experiment: by which arm, and what came of it. Null: not known (yet)."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="exposures")
    client_id = models.CharField(max_length=64, help_text="Of the answer.")
    unit = models.CharField(max_length=32, help_text="Keyed hash of the conversation or user.")
    arm = models.CharField(max_length=9, choices=ArmName.choices)
    epoch = models.PositiveSmallIntegerField()
    at = models.DateTimeField()
    # An erasure takes the turn, and this with it.
    turn = models.ForeignKey(Turn, null=True, on_delete=models.CASCADE, related_name="exposures")
    latency_ms = models.PositiveIntegerField(null=True)
    slow = models.BooleanField(null=True)
    declined = models.BooleanField(null=True)
    unsupported = models.BooleanField(null=True)
    reformulated = models.BooleanField(null=True)
    down = models.BooleanField(null=True, help_text="Null: no thumb and no rating.")
    corrected = models.BooleanField(null=True)
    escalated = models.BooleanField(null=True)
    failed = models.BooleanField(default=False)
    counted = models.BooleanField(default=False, help_text="Its unit holds it as it is now.")

    objects = ExposureQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["experiment", "client_id"], name="exposure_once"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["experiment", "unit", "id"], name="exposure_unit"),
            # Few rows at any time: what the next pass has to do.
            models.Index(fields=["experiment", "at"], condition=models.Q(turn=None), name="exposure_waiting"),
            models.Index(fields=["experiment", "id"], condition=models.Q(counted=False), name="exposure_uncounted"),
            models.Index(
                fields=["experiment", "at"],
                name="exposure_unread",
                condition=models.Q(unsupported=None, declined=False, turn__isnull=False),
            ),
            models.Index(
                fields=["experiment", "at"],
                name="exposure_unfollowed",
                condition=models.Q(reformulated=None, turn__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.arm} {self.client_id}"


class ExposedUnit(models.Model):
    """All questions of one unit in one arm: the mean of each outcome, null where nothing is known. Written by
    `serving.experiments.units` alone, as long as the experiment runs; named as the outcomes of `plan`."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="units")
    epoch = models.PositiveSmallIntegerField()
    unit = models.CharField(max_length=32)
    arm = models.CharField(max_length=9, choices=ArmName.choices)
    questions = models.PositiveIntegerField()
    latency_ms = models.FloatField(null=True)
    responded = models.BooleanField(help_text="With a thumb or a rating.")
    trouble = models.FloatField(null=True)
    down = models.FloatField(null=True)
    corrected = models.FloatField(null=True)
    escalated = models.FloatField(null=True)
    reformulated = models.FloatField(null=True)
    declined = models.FloatField(null=True)
    unsupported = models.FloatField(null=True)
    slow = models.FloatField(null=True)
    failed = models.FloatField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["experiment", "epoch", "unit", "arm"], name="exposed_unit_once")
        ]

    def __str__(self) -> str:
        return f"{self.arm} {self.unit}"


class ExperimentLook(models.Model):
    """What an experiment said at one time: the points of its chart."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="looks")
    at = models.DateTimeField(default=timezone.now)
    stage = models.CharField(max_length=8, choices=Experiment.Stage.choices)
    epoch = models.PositiveSmallIntegerField()
    result = models.JSONField(default=dict, help_text="As serving.experiments.looking.look; numbers only.")

    class Meta:
        ordering = ("at",)
        indexes: ClassVar = [models.Index(fields=["experiment", "-at"], name="experiment_look_newest")]

    def __str__(self) -> str:
        return f"{self.experiment} at {self.at}"


class ShadowAnswer(models.Model):
    """What the other arm would have answered to a stored turn. Nobody was shown it."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="shadows")
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="shadow_answers")
    arm = models.CharField(max_length=9, choices=ArmName.choices, help_text="Who wrote it.")
    completion = models.TextField(blank=True)
    text = models.TextField(blank=True, help_text="With [n] citations of passages.")
    declined = models.BooleanField(default=False)
    supported = models.BooleanField(null=True, help_text="By the words of answer and passages: a hint.")
    shown_supported = models.BooleanField(null=True, help_text="The same of the answer that the user saw.")
    seconds = models.FloatField(default=0.0)
    error = models.CharField(max_length=200, blank=True, help_text="Why there is no answer.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["experiment", "turn"], name="shadow_once")]

    def __str__(self) -> str:
        return f"{self.arm} on {self.turn_id}"

"""What people decided about turns, and which decision counts."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Coalesce
from django.utils import timezone

from annotations.choices import Reason, Verdict
from annotations.comparing.models import Aspect, Choice, ComparisonChoice, ComparisonPair, ComparisonRound
from annotations.gold_models import GoldItem
from annotations.labelling_models import MAX_MISSED, LiveAnswer, MissedPassage, SavedDraft, SuggestionView
from annotations.machine.models import MachineKind, MachineLabel
from assistants.models import Assistant
from capture.models import Retrieval, Turn

__all__ = [
    "MAX_MISSED",
    "Annotation",
    "AnnotationQuerySet",
    "Aspect",
    "Assignment",
    "AssignmentQuerySet",
    "Choice",
    "ComparisonChoice",
    "ComparisonPair",
    "ComparisonRound",
    "ContextMark",
    "GoldItem",
    "LiveAnswer",
    "MachineKind",
    "MachineLabel",
    "MissedPassage",
    "Queue",
    "QueueItem",
    "QueueItemQuerySet",
    "Reason",
    "Resolution",
    "SavedDraft",
    "SuggestionView",
    "Verdict",
]

MAX_CORRECTION = 20_000
MAX_NOTE = 4_000
MAX_SKIP_REASON = 200


class Queue(models.Model):
    """Work for annotators: which turns, how many labels each, by whom."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="queues")
    name = models.CharField(max_length=120)
    guideline = models.TextField(blank=True, max_length=20_000, help_text="Markdown, shown beside the work.")
    labels_needed = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(9)])
    overlap_share = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="Share of the turns that get one label more than needed, to measure agreement.",
    )
    people = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        blank=True,
        related_name="+",
        help_text="Only they get items. Nobody chosen: everybody who labels for the assistant.",
    )
    daily_goal = models.PositiveSmallIntegerField(
        default=0, validators=[MaxValueValidator(2000)], help_text="Labels per person and day; 0: none."
    )
    gold_share = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(0.5)],
        help_text="How often somebody gets an item with a known answer, 0 to 0.5. Reviewers mark such items.",
    )
    selection = models.JSONField(
        default=dict, blank=True, editable=False, help_text="The filter it was last filled by."
    )
    paused = models.BooleanField(default=False, help_text="Nobody gets new items while it is paused.")
    show_suggestions = models.BooleanField(
        default=False,
        help_text="Annotators may see what programs and judges say of a turn: after they have decided, or when they "
        "ask. That they saw it stands on their label.",
    )
    ask_live = models.BooleanField(
        "ask the live model",
        default=False,
        help_text="What is live answers the turns again from their passages, in the background, and its answer is one "
        "more suggestion. It takes the engine's time when users leave it some.",
    )
    machines_count = models.BooleanField(
        "machine labels count",
        default=False,
        help_text="The last word of each program or judge on a turn counts like one person's label. "
        "A turn that is also in a queue without this stays with people.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["assistant", "name"], name="queue_name_once")]

    def __str__(self) -> str:
        return self.name


class QueueItemQuerySet(models.QuerySet["QueueItem"]):
    def untouched_by(self, annotator: User) -> Self:
        """Neither labelled nor skipped by this person."""
        labelled = Annotation.objects.current().filter(turn=models.OuterRef("turn"), annotator=annotator)
        skipped = Assignment.objects.filter(item=models.OuterRef("pk"), annotator=annotator).exclude(skipped_at=None)
        return self.filter(~models.Exists(labelled), ~models.Exists(skipped))

    def left_for(self, annotator: User) -> Self:
        """What this person may still label: not done, neither labelled nor skipped by them."""
        return self.untouched_by(annotator).filter(done=False)

    def with_room(self, annotator: User, now: datetime, *, over_ahead: bool = False) -> Self:
        """Items that need more labels than they have labels and live leases of other people; ``over_ahead`` does not
        count leases on items that were only fetched ahead."""
        live = Assignment.objects.live(now)
        leases = (
            (live.filter(ahead=False) if over_ahead else live)
            .filter(item=models.OuterRef("pk"))
            .exclude(annotator=annotator)
            .order_by()
            .values("item")
            .annotate(n=models.Count("pk"))
            .values("n")
        )
        taken = models.F("labels_done") + Coalesce(models.Subquery(leases), 0)
        return self.alias(taken=taken).filter(labels_needed__gt=models.F("taken"))

    def split(self) -> Self:
        """Enough labels, but they disagree: a reviewer settles them."""
        # Without the detour over the turn: joining a million of them would take longer than all the rest.
        return self.filter(~models.Exists(Resolution.objects.filter(turn=models.OuterRef("turn"))), done=True)


class QueueItem(models.Model):
    """One turn in one queue. ``labels_needed`` is fixed when it is added (overlap is drawn once, by hash)."""

    queue = models.ForeignKey(Queue, on_delete=models.CASCADE, related_name="items")
    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="queue_items")
    labels_needed = models.PositiveSmallIntegerField(default=1)
    labels_done = models.PositiveSmallIntegerField(default=0)
    done = models.BooleanField(default=False)
    added_at = models.DateTimeField(auto_now_add=True)

    objects = QueueItemQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["queue", "turn"], name="queue_item_once")]
        indexes: ClassVar = [models.Index(fields=["queue", "done", "id"], name="queue_item_next")]

    def __str__(self) -> str:
        return f"{self.queue}: {self.turn}"


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def live(self, now: datetime | None = None) -> Self:
        return self.filter(skipped_at=None, expires_at__gt=now or timezone.now())

    def skipped(self) -> Self:
        return self.exclude(skipped_at=None)


class Assignment(models.Model):
    """A lease: one annotator works on one item until ``expires_at``; a skip is kept: the item does not return."""

    item = models.ForeignKey(QueueItem, on_delete=models.CASCADE, related_name="assignments")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    expires_at = models.DateTimeField()
    ahead = models.BooleanField(
        default=False, help_text="Fetched ahead and not on the screen yet: whoever finds nothing else may take it over."
    )
    skipped_because = models.CharField(max_length=MAX_SKIP_REASON, blank=True)
    skipped_at = models.DateTimeField(null=True, blank=True)

    objects = AssignmentQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["item", "annotator"], name="assignment_once")]

    def __str__(self) -> str:
        return f"{self.annotator} on {self.item}"

    @property
    def is_live(self) -> bool:
        return self.skipped_at is None and self.expires_at > timezone.now()


class Suggested(models.TextChoices):
    BEFORE = "before", "Asked for before deciding"
    AFTER = "after", "Seen after deciding"


class AnnotationQuerySet(models.QuerySet["Annotation"]):
    def of(self, assistant: Assistant) -> Self:
        """On its turns. A label's queue is one of its turn's assistant: asked of the turns, each label would be looked
        up among all of them, which is most of a page over many labels."""
        queues = Queue.objects.filter(assistant=assistant).order_by().values("pk")
        alone = Turn.objects.filter(pk=models.OuterRef("turn"), assistant=assistant)
        return self.filter(models.Q(queue__in=queues) | models.Q(models.Q(queue=None), models.Exists(alone)))

    def current(self) -> Self:
        """What counts now: without labels that their author has replaced (a change of mind) or taken back (undo)."""
        return self.filter(replaced_by=None, withdrawn_at=None)


class Annotation(models.Model):
    """One person's verdict on one turn."""

    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="annotations")
    queue = models.ForeignKey(Queue, null=True, blank=True, on_delete=models.SET_NULL, related_name="annotations")
    annotator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="annotations")
    verdict = models.CharField(max_length=4, choices=Verdict.choices)
    reasons = ArrayField(models.CharField(max_length=24, choices=Reason.choices), default=list, blank=True)
    correction = models.TextField(blank=True, max_length=MAX_CORRECTION, help_text="With [n] citations of passages.")
    note = models.TextField(blank=True, max_length=MAX_NOTE)
    seconds = models.FloatField(null=True, blank=True, help_text="Time on the page.")
    suggested = models.CharField(
        max_length=6,
        choices=Suggested.choices,
        blank=True,
        help_text="Whether the annotator saw what machines say of the turn, and when.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    replaced_by = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="replaces"
    )
    withdrawn_at = models.DateTimeField(null=True, blank=True, help_text="Taken back by its author; kept, not counted.")

    objects = AnnotationQuerySet.as_manager()

    class Meta:
        ordering = ("created_at",)
        constraints: ClassVar = [
            # Two tabs, a double submit: the second current label of the same person on the same turn is refused.
            models.UniqueConstraint(
                fields=["turn", "annotator"],
                condition=models.Q(replaced_by=None, withdrawn_at=None),
                include=["queue"],  # who has labelled how much, from the index alone
                name="annotation_current_once",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["queue", "annotator", "-created_at"], name="annotation_mine"),  # undo, mine today
            models.Index(fields=["-created_at", "-id"], name="annotation_newest"),  # the list, agreement
            models.Index(fields=["queue", "-created_at", "-id"], name="annotation_newest_of_queue"),
        ]

    def __str__(self) -> str:
        return f"{self.annotator}: {self.verdict}"

    @property
    def reason_labels(self) -> list[str]:
        return [str(Reason(reason).label) for reason in self.reasons]


class ContextMark(models.Model):
    """What an annotator says of one retrieved passage."""

    class Relevance(models.TextChoices):
        RELEVANT = "relevant", "Relevant"
        NOT_RELEVANT = "not_relevant", "Not relevant"
        UNSURE = "unsure", "Unsure"

    annotation = models.ForeignKey(Annotation, on_delete=models.CASCADE, related_name="marks")
    retrieval = models.ForeignKey(Retrieval, on_delete=models.CASCADE, related_name="marks")
    relevance = models.CharField(max_length=12, choices=Relevance.choices)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["annotation", "retrieval"], name="mark_once")]

    def __str__(self) -> str:
        return f"[{self.retrieval.rank}] {self.relevance}"


class ResolutionQuerySet(models.QuerySet["Resolution"]):
    def of(self, assistant: Assistant) -> Self:
        """On its turns: most are in one of its queues, which is known without looking each up among all turns."""
        queued = QueueItem.objects.filter(queue__assistant=assistant).order_by().values("turn")
        alone = Turn.objects.filter(pk=models.OuterRef("turn"), assistant=assistant)
        return self.filter(models.Q(turn__in=queued) | models.Q(models.Exists(alone)))


class Resolution(models.Model):
    """The verdict that counts for a turn, after overlap and adjudication."""

    class How(models.TextChoices):
        SINGLE = "single", "One label was enough"
        AGREED = "agreed", "Labels agree"
        MAJORITY = "majority", "Majority of labels"
        ADJUDICATED = "adjudicated", "Settled by a reviewer"

    turn = models.OneToOneField(Turn, on_delete=models.CASCADE, related_name="resolution")
    verdict = models.CharField(max_length=4, choices=Verdict.choices)
    reasons = ArrayField(models.CharField(max_length=24, choices=Reason.choices), default=list, blank=True)
    response = models.TextField(
        blank=True, help_text="The answer to learn: the logged one if good, else the correction."
    )
    relevant_ranks = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    how = models.CharField(max_length=12, choices=How.choices)
    annotations = models.ManyToManyField(Annotation, related_name="resolutions", help_text="The labels that counted.")
    machine_labels = models.ManyToManyField(
        MachineLabel, related_name="resolutions", help_text="Labels of machines that counted, where a queue lets them."
    )
    resolved_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    resolved_at = models.DateTimeField(auto_now=True)

    objects = ResolutionQuerySet.as_manager()

    class Meta:
        ordering = ("-resolved_at",)
        indexes: ClassVar = [
            # How often people are right: of many verdicts few are a reviewer's.
            models.Index(fields=["turn"], condition=models.Q(how="adjudicated"), name="resolution_adjudicated"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} ({self.how})"

    @property
    def stamp(self) -> str:
        """Another one after each time it is written: pages post it back, to say which verdict they showed."""
        return f"{self.pk}@{self.resolved_at.isoformat()}"

    @property
    def reason_labels(self) -> list[str]:
        return [str(Reason(reason).label) for reason in self.reasons]

"""What a privacy officer has to look at: uncertain masks, and their values for as long as somebody may release them."""

from __future__ import annotations

from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from assistants.background import BackgroundQuerySet, BackgroundWork
from assistants.models import Assistant, PrivacyPolicy


class UncertainMaskQuerySet(models.QuerySet["UncertainMask"]):
    def open(self) -> Self:
        return self.filter(state=UncertainMask.State.OPEN)

    def expired(self) -> Self:
        return self.open().filter(expires_at__lte=timezone.now())


class UncertainMask(models.Model):
    """One placeholder of one conversation that was put there below the policy's threshold.

    It holds no value: those are in `KeptSpelling`, rows of their own that go with the decision or after their time.
    """

    class State(models.TextChoices):
        OPEN = "open", "To be reviewed"
        ACCEPTED = "accepted", "Accepted: it stays masked"
        RELEASED = "released", "Released: nobody's data"
        CONFIRMED = "confirmed", "Confirmed by a later finding"
        EXPIRED = "expired", "Time is over: it stays masked"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="+")
    conversation = models.ForeignKey("capture.Conversation", on_delete=models.CASCADE, related_name="uncertain")
    turn = models.ForeignKey(
        "capture.Turn", on_delete=models.CASCADE, related_name="uncertain", help_text="Where it was found first."
    )
    placeholder = models.CharField(max_length=40)
    entity_type = models.CharField(max_length=20)
    field = models.CharField(max_length=200, help_text="Of the turn, as in its list of masks.")
    recognizer = models.CharField(max_length=120)
    score = models.FloatField()
    context_word = models.CharField(max_length=60, blank=True)
    policy_digest = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    found_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(help_text="Then its value is destroyed.")
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    objects = UncertainMaskQuerySet.as_manager()

    class Meta:
        verbose_name = "uncertain mask"
        ordering = ("pk",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["conversation", "placeholder"], name="uncertain_mask_once")
        ]
        indexes: ClassVar = [
            models.Index(fields=["assistant", "state", "id"], name="uncertain_mask_list"),
            models.Index(fields=["expires_at"], condition=models.Q(state="open"), name="uncertain_mask_expiry"),
        ]

    def __str__(self) -> str:
        return f"{self.placeholder} of conversation {self.conversation_id}"


class KeptSpelling(models.Model):
    """How an uncertain value was written in one field of one turn, encrypted."""

    mask = models.ForeignKey(UncertainMask, on_delete=models.CASCADE, related_name="spellings")
    turn = models.ForeignKey("capture.Turn", on_delete=models.CASCADE, related_name="+")
    field = models.CharField(max_length=200)
    forms = models.BinaryField(help_text="Encrypted JSON: one text for each place of the placeholder, in order.")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["mask", "turn", "field"], name="kept_spelling_once")]

    def __str__(self) -> str:
        return f"{self.field} of mask {self.mask_id}"


class Rescrub(BackgroundWork):
    """Stored texts of one assistant through the scrubber once more, under the newest policy: masks are only added."""

    needs_device = False

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="rescrubs")
    policy = models.ForeignKey(PrivacyPolicy, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    dry_run = models.BooleanField(default=True, help_text="Only counts what would change.")
    cursor = models.BigIntegerField(default=0, editable=False, help_text="The last conversation that is done.")
    counts = models.JSONField(default=dict, editable=False, help_text="{seen, turns, passages, …, masks: {type: n}}")

    objects = BackgroundQuerySet.as_manager()

    class Meta:
        verbose_name = "re-scrub"
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{'Dry run' if self.dry_run else 'Re-scrub'} {self.pk}"

    def perform(self) -> None:
        from capture.rescrub import perform

        perform(self)

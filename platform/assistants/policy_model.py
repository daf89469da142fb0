"""The privacy policy of an assistant: rows that are only ever added, the newest counts."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings as django_settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from privacy.policy import Policy

REVIEW_DAYS = 30
MAX_REVIEW_DAYS = 365


class Rendering(models.TextChoices):
    PLACEHOLDERS = "placeholders", "Placeholders such as [PERSON_1]"
    SURROGATES = "surrogates", "Invented values of the same type"


class DocumentMasking(models.TextChoices):
    TRUSTED = "trusted", "Mask what must not even stand in own documents"
    EVERYTHING = "everything", "Mask everything that turns lose"
    NOTHING = "nothing", "Leave them as they are"


class PrivacyPolicy(models.Model):
    """One version. A change makes the next one, a step back as well: what masked a turn can always be looked up.

    Its lists hold personal data (a staff directory): privacy officers and admins read it, nobody else.
    """

    assistant = models.ForeignKey("assistants.Assistant", on_delete=models.CASCADE, related_name="privacy_policies")
    number = models.PositiveIntegerField()
    settings = models.JSONField(help_text="privacy.policy.Policy.to_dict().")
    review_days = models.PositiveSmallIntegerField(
        default=REVIEW_DAYS,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_REVIEW_DAYS)],
        help_text="How long the value of an uncertain finding is kept for the review.",
    )
    rendering = models.CharField(
        max_length=12,
        choices=Rendering.choices,
        default=Rendering.PLACEHOLDERS,
        help_text="What datasets write where something was masked, unless their recipe says otherwise.",
    )
    documents = models.CharField(
        max_length=10,
        choices=DocumentMasking.choices,
        default=DocumentMasking.TRUSTED,
        help_text="What is masked in documents when they are loaded.",
    )
    digest = models.CharField(max_length=64, help_text="Of the settings and the recognisers when it was saved.")
    restored_from = models.PositiveIntegerField(null=True, blank=True, help_text="The version that it brought back.")
    reason = models.CharField(max_length=500)
    created_by = models.ForeignKey(
        django_settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    author = models.CharField(max_length=150, help_text="Kept when the account goes.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "privacy policy"
        verbose_name_plural = "privacy policies"
        ordering = ("assistant", "-number")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "number"], name="privacy_policy_number_once")
        ]

    def __str__(self) -> str:
        return f"Privacy policy {self.number} of {self.assistant}"

    @property
    def policy(self) -> Policy:
        """The rules that the scrubber applies.

        Raises:
            ValueError: the row was written by a release that knew other settings.
        """
        return Policy.from_dict(self.settings)

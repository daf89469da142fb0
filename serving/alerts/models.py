"""What somebody must know, and whom to tell. Models of `serving.models`."""

from __future__ import annotations

import secrets
from typing import ClassVar, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models
from django.utils import timezone

from assistants.models import Assistant


class AlertQuerySet(models.QuerySet["Alert"]):
    def open(self) -> Self:
        return self.filter(cleared_at=None)


class Alert(models.Model):
    """One thing that is wrong, or has happened, from when it was first seen until it is over."""

    class Level(models.TextChoices):
        NEWS = "news", "News"
        WARNING = "warning", "Warning"
        URGENT = "urgent", "Urgent"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=40, help_text="See serving.alerts.conditions.")
    key = models.CharField(max_length=60, blank=True, help_text="Of which thing, where there may be several.")
    level = models.CharField(max_length=8, choices=Level.choices)
    sentence = models.TextField(help_text="Counts, names and numbers; no text of users.")
    link = models.CharField(max_length=200, blank=True, help_text="Path of the page that shows it.")
    raised_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now, help_text="When it was last true.")
    cleared_at = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    objects = AlertQuerySet.as_manager()

    class Meta:
        ordering = ("-raised_at", "-pk")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["assistant", "kind", "key"], condition=models.Q(cleared_at=None), name="alert_open_once"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["assistant", "-raised_at"], name="alert_newest")]

    def __str__(self) -> str:
        return self.sentence


def new_salt() -> str:
    return secrets.token_hex(16)


class AlertChannel(models.Model):
    """Where alerts of an assistant go: one address."""

    class Kind(models.TextChoices):
        EMAIL = "email", "E-mail"
        WEBHOOK = "webhook", "Webhook"

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="alert_channels")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    address = models.CharField(max_length=500, help_text="An e-mail address, or the https address that gets a POST.")
    level = models.CharField(
        "from level", max_length=8, choices=Alert.Level.choices, default=Alert.Level.WARNING,
        help_text="Alerts below this level are not sent here.",
    )  # fmt: skip
    enabled = models.BooleanField(default=True)
    key_salt = models.CharField(
        max_length=32, default=new_salt, editable=False,
        help_text="A webhook's signing key is made of this and a secret of the server: see `webhooks.key_of`.",
    )  # fmt: skip
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("assistant", "kind", "address")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "kind", "address"], name="alert_channel_once")
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.address}"

    def clean(self) -> None:
        """Raises ValidationError: no e-mail address, no http(s) address, or one with a password in it."""
        from serving.alerts.webhooks import address_problem

        if self.kind == self.Kind.EMAIL:
            try:
                validate_email(self.address)
            except ValidationError as error:
                raise ValidationError({"address": error.messages}) from error
        elif problem := address_problem(self.address):
            raise ValidationError({"address": problem})


class AlertDelivery(models.Model):
    """One alert on its way to one channel, when it was raised or when it cleared."""

    MOST_ATTEMPTS: ClassVar = 8

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.ForeignKey(AlertChannel, on_delete=models.CASCADE, related_name="deliveries")
    cleared = models.BooleanField(default=False, help_text="That it is over.")
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["alert", "channel", "cleared"], name="alert_delivery_once")
        ]
        indexes: ClassVar = [
            models.Index(fields=["due_at"], condition=models.Q(sent_at=None), name="alert_delivery_due")
        ]

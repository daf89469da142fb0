"""Places elsewhere that train: servers which speak the fine-tuning API of OpenAI, and Ray clusters."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from assistants.models import Assistant
from assistants.vault import decrypt, encrypt


class TrainingProvider(models.Model):
    """An address with a key. Rows that are trained there leave this house."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="training_providers")

    class Kind(models.TextChoices):
        OPENAI = "openai", "OpenAI's fine-tuning API"
        RAY = "ray", "Ray cluster"

    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.OPENAI)
    name = models.CharField(max_length=80)
    base_url = models.URLField(max_length=300, help_text="Up to and with /v1; of a Ray cluster its dashboard.")
    model = models.CharField(
        max_length=200,
        blank=True,
        help_text="The base that the provider fine-tunes, in its words; of a Ray cluster the base's folder there.",
    )
    sealed_key = models.BinaryField(editable=False, help_text="The API key, encrypted with the data key.")
    gpus = models.PositiveSmallIntegerField(default=0, help_text="That a job reserves on a Ray cluster.")
    folder = models.CharField(max_length=300, blank=True, help_text="Of a Ray cluster, for checkpoints.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "name"], name="training_provider_name_once")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def api_key(self) -> str:
        """Raises assistants.vault.PayloadUnreadable when no key that we hold opens it."""
        return decrypt(self.sealed_key).decode()

    @api_key.setter
    def api_key(self, value: str) -> None:
        self.sealed_key = encrypt(value.encode())

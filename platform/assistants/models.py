"""The tenant: one chatbot, the people who work on it, the keys that its programs use, and who did what."""

from __future__ import annotations

import hashlib
import secrets
from typing import ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from assistants.key_check_model import KeyCheck
from assistants.policy_model import PrivacyPolicy, Rendering
from generation.prompts import House, PromptStyle, prompt_digest

__all__ = [
    "ApiKey",
    "ApiKeyQuerySet",
    "Assistant",
    "AuditEvent",
    "KeyCheck",
    "Membership",
    "MembershipQuerySet",
    "PrivacyPolicy",
    "Rendering",
    "Role",
    "Scope",
]

VIEWED = ".viewed"
"""How the action of a mere look ends: these are forgotten after a while, acts never."""
MAX_GLOSSARY = 2000
MAX_GLOSSARY_CHARS = 200


class Assistant(models.Model):
    """One chatbot. Everything else belongs to one assistant, and no query crosses from one to another."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)
    prompt_style = models.CharField(
        max_length=16, choices=[(s.value, s.name.title()) for s in PromptStyle], default=PromptStyle.SENTENCES.value
    )
    decline_sentence = models.CharField(
        max_length=300,
        default="I can't find that in the documents.",
        help_text="What the assistant says when the passages do not hold the answer.",
    )
    handoff_sentence = models.CharField(
        max_length=300,
        blank=True,
        help_text="What it says when the matter goes to a person. Learned from conversations; not part of the prompt.",
    )
    instructions = models.TextField(blank=True, max_length=4000, help_text="Put before the rule in the system message.")
    glossary = models.JSONField(
        default=dict, blank=True, help_text="{what customers say: what the documents say}: searched for as well."
    )
    retrieval_k = models.PositiveSmallIntegerField(default=6, validators=[MinValueValidator(1), MaxValueValidator(20)])
    evidence_sentences = models.PositiveSmallIntegerField(
        default=8, validators=[MinValueValidator(1), MaxValueValidator(40)]
    )
    evidence_threshold = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="Where not even the best sentence is as similar to the question, decline without asking a model. "
        "0: always ask. The page Threshold proposes one.",
    )
    retrieval = models.JSONField(
        default=dict,
        blank=True,
        editable=False,
        help_text="What else differs from the defaults of knowledge.configuration.RetrievalSettings.",
    )
    keep_turns_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(36_500)],
        help_text="Conversations that nobody has worked on go so many days after their last turn. Empty: never.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Raises ValidationError with one sentence when the glossary is not {short text: short text}."""
        if problem := _glossary_problem(self.glossary):
            raise ValidationError({"glossary": problem})

    @property
    def house(self) -> House:
        return House(
            decline=self.decline_sentence, instructions=self.instructions, style=PromptStyle(self.prompt_style)
        )

    @property
    def prompt_digest(self) -> str:
        return prompt_digest(self.house)


def _glossary_problem(glossary: object) -> str | None:
    if not isinstance(glossary, dict):
        return 'Write one object: {"what customers say": "what the documents say", …}.'
    if len(glossary) > MAX_GLOSSARY:
        return f"These are {len(glossary):,} entries; a glossary holds at most {MAX_GLOSSARY:,}."
    for said, meant in glossary.items():
        if not all(isinstance(text, str) and 0 < len(text.strip()) <= MAX_GLOSSARY_CHARS for text in (said, meant)):
            return f"Entry “{said[:40]}”: both sides are texts of 1 to {MAX_GLOSSARY_CHARS} characters."
        if "\x00" in said + meant:
            return f"Entry “{said[:40]}” holds a character that cannot be stored."
    return None


class Role(models.TextChoices):
    ANNOTATOR = "annotator", "Annotator"
    REVIEWER = "reviewer", "Reviewer"
    PRIVACY = "privacy", "Privacy officer"
    ADMIN = "admin", "Admin"


class MembershipQuerySet(models.QuerySet["Membership"]):
    def of(self, user: object, assistant: Assistant) -> Self:
        return self.filter(user=user, assistant=assistant)


class Membership(models.Model):
    """What one person may do on one assistant. A superuser may do everything everywhere."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["assistant", "user", "role"], name="membership_once"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.assistant}"


class Scope(models.TextChoices):
    LOG = "log", "Post turns and feedback"
    CHAT = "chat", "Ask the assistant"
    READ = "read", "Read turns"
    ANNOTATE = "annotate", "Post labels of programs and judges"
    DOCUMENTS = "documents", "Load, list and delete documents"
    TRAIN = "train", "Start, watch and stop training runs"
    PROVIDERS = "providers", "Train at a provider: rows leave this platform"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def usable(self) -> Self:
        now = timezone.now()
        return self.filter(revoked_at=None).filter(models.Q(expires_at=None) | models.Q(expires_at__gt=now))


class ApiKey(models.Model):
    """A program's key. The secret is shown once; what is stored is its SHA-256 (the secret has 256 random bits, so a
    slow password hash would add latency to every request and no safety)."""

    assistant = models.ForeignKey(Assistant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=120)
    prefix = models.CharField(max_length=12, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = ArrayField(models.CharField(max_length=12, choices=Scope.choices), default=list)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def generate_secret() -> str:
        return "rk_" + secrets.token_urlsafe(32)

    @staticmethod
    def digest_of(secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()

    @property
    def is_usable(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class AuditEvent(models.Model):
    """Who saw, labelled, released, promoted, erased: written in the transaction of the act itself, never changed."""

    assistant = models.ForeignKey(Assistant, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    actor_name = models.CharField(max_length=150, help_text="Kept when the account goes.")
    action = models.CharField(max_length=64)
    target = models.CharField(max_length=200, blank=True)
    reason = models.TextField(blank=True)
    details = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-at",)
        indexes: ClassVar = [
            models.Index(fields=["assistant", "-at"]),  # the audit page of one assistant
            models.Index(fields=["at"], condition=models.Q(action__endswith=VIEWED), name="audit_views"),  # forgetting
        ]

    def __str__(self) -> str:
        return f"{self.actor_name}: {self.action} {self.target}"

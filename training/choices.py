"""The choices that columns of several models share; `training.models` offers them too."""

from __future__ import annotations

from django.db import models


class Origin(models.TextChoices):
    GOOD = "good", "Good as logged"
    CORRECTED = "corrected", "Corrected by a person"
    SYNTHETIC = "synthetic", "Synthetic"
    DECLINED = "declined", "Declining"
    BAD = "bad", "Judged bad, nothing better known"
    PREFERRED = "preferred", "Preferred in a blind comparison"
    IMPORTED = "imported", "Imported"


class Kind(models.TextChoices):
    """What the right behaviour is."""

    ANSWER = "answer", "Answer"
    DECLINE = "decline", "Decline"
    HANDOFF = "handoff", "Hand over to a person"


class GateVerdict(models.TextChoices):
    PASSED = "passed", "Passed"
    NOT_PROVEN = "not_proven", "Not proven"
    WORSE = "worse", "Worse"


class Arm(models.TextChoices):
    EXTRACTIVE = "extractive", "Most similar sentence (no model)"
    BASE = "base", "Base alone"
    BASE_RAG = "base_rag", "Base + retrieval (today)"
    FEW_SHOT = "few_shot", "Base + retrieval + examples"
    ADAPTER = "adapter", "Adapter alone"
    RIVAL_RAG = "rival_rag", "Other adapter + retrieval"
    ADAPTER_RAG = "adapter_rag", "Adapter + retrieval (candidate)"


class Condition(models.TextChoices):
    CLEAN = "clean", "Clean"
    MISSING_ORACLE = "missing_oracle", "Oracle missing"
    GOLD_ONLY = "gold_only", "Gold only"
    NOISY_HARD = "noisy_hard", "Noisy, near misses"
    NOISY_RANDOM = "noisy_random", "Noisy, at random"
    COUNTERFACTUAL = "counterfactual", "Counterfactual"
    SHUFFLED = "shuffled", "Shuffled"
    OUT_OF_DOMAIN = "out_of_domain", "Outside the domain"

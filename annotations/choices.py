"""The words of a label."""

from __future__ import annotations

from django.db import models


class Verdict(models.TextChoices):
    GOOD = "good", "Good"
    BAD = "bad", "Bad"


class Reason(models.TextChoices):
    """Why a turn is bad. ``RETRIEVAL_MISSED`` turns teach retrieval and declining, never answering."""

    NOT_SUPPORTED = "not_supported", "Not supported by the sources"
    WRONG = "wrong", "Wrong"
    INCOMPLETE = "incomplete", "Incomplete"
    SHOULD_HAVE_DECLINED = "should_have_declined", "Should have declined"
    SHOULD_HAVE_ANSWERED = "should_have_answered", "Should have answered"
    CITATION = "citation", "Citation missing or wrong"
    TONE = "tone", "Tone or format"
    UNSAFE = "unsafe", "Unsafe or private"
    RETRIEVAL_MISSED = "retrieval_missed", "Retrieval missed it"

"""Uploads: what the worker calls by name."""

from __future__ import annotations

from assistants.models import Assistant
from assistants.schedules import DAILY, ensure_schedule
from knowledge.deciding import forget_undecided


def forget_all_undecided() -> str:
    """Empties files that nobody decided about. Run each day."""
    return f"{sum(forget_undecided(assistant) for assistant in Assistant.objects.all())} files forgotten"


def ensure_forgetting() -> None:
    ensure_schedule(
        "Forget files of uploads that nobody decided about", "knowledge.upload_jobs.forget_all_undecided", DAILY
    )

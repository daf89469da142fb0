"""Uploads: what the worker calls by name."""

from __future__ import annotations

from assistants.models import Assistant
from knowledge.deciding import forget_undecided


def forget_all_undecided() -> str:
    """Empties files that nobody decided about. Run each day."""
    return f"{sum(forget_undecided(assistant) for assistant in Assistant.objects.all())} files forgotten"


def ensure_forgetting() -> None:
    from django_q.models import Schedule

    Schedule.objects.get_or_create(
        name="Forget files of uploads that nobody decided about",
        defaults={"func": "knowledge.upload_jobs.forget_all_undecided", "schedule_type": Schedule.DAILY, "repeats": -1},
    )

"""Background entry points of this room: called by the worker, by name."""

from __future__ import annotations

from assistants.models import Assistant
from assistants.schedules import ensure_schedule
from knowledge.indexing import tend
from knowledge.lexicon import count_words, due_for_counting

COUNT_MINUTES = 10
TEND_MINUTES = 10


def count_due() -> str:
    """Counts the words of assistants whose documents have changed much since. Run every few minutes."""
    due = list(Assistant.objects.filter(pk__in=due_for_counting()))
    for assistant in due:
        count_words(assistant)
    return f"words of {len(due)} assistants counted"


def tend_indexes() -> str:
    """Makes, rebuilds and drops the vector indexes of large assistants. Run every few minutes."""
    return tend()


def ensure_counting() -> None:
    ensure_schedule("Count the words of documents", "knowledge.jobs.count_due", COUNT_MINUTES)


def ensure_indexing() -> None:
    ensure_schedule("Tend the vector indexes of documents", "knowledge.jobs.tend_indexes", TEND_MINUTES)

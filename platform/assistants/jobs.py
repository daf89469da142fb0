"""Background entry points of this room: called by the worker, by name."""

from __future__ import annotations

from assistants import background, performing, viewing
from assistants.schedules import DAILY, ensure_schedule


def start(label: str, pk: int) -> None:
    """Starts the process that performs ``label`` (``training.Run``) number ``pk``, and returns."""
    performing.start_process(label, pk)


def sweep() -> None:
    background.sweep()


def forget_views() -> str:
    """Forgets who looked at what, when its time is over. Run each day."""
    return f"{viewing.forget_views()} looks forgotten"


def ensure_forgetting() -> None:
    ensure_schedule("Forget who looked at what", "assistants.jobs.forget_views", DAILY)

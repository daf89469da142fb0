"""Background entry points of this room: called by the worker, by name."""

from __future__ import annotations

from assistants import background, performing


def start(label: str, pk: int) -> None:
    """Starts the process that performs ``label`` (``training.Run``) number ``pk``, and returns."""
    performing.start_process(label, pk)


def sweep() -> None:
    background.sweep()

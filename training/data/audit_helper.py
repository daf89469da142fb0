"""What runs in the process that reads rows beside a build (`training.data.auditing`). Nothing of Django is imported
with this module: the process begins with it, before there is a registry of models."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.data.auditing import Reading, Stored

_reading: Reading | None = None


def begin(assistant: int, subject: str, database: str) -> None:
    """``database``: the name of the one that the build works in."""
    global _reading  # noqa: PLW0603 - this process's own, made once
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    import django

    django.setup()
    from django.db import connection

    from assistants.models import Assistant
    from training.data.auditing import Reading

    connection.settings_dict["NAME"] = database
    _reading = Reading(Assistant.objects.get(pk=assistant), subject)


def read(part: Sequence[Stored], first: int) -> None:
    assert _reading is not None
    _reading.read(part, first)


def look(part: Sequence[Stored]) -> None:
    assert _reading is not None
    _reading.look(part)


def report() -> Any:
    assert _reading is not None
    return _reading.audit.report()


def end_with_parent() -> None:
    """A process whose parent was killed would wait for its next part for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

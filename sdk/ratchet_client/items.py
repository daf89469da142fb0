"""What travels: an item as it is queued, sent and spooled; and what the host is told of one that does not arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__version__ = "0.1.0"
MAX_ITEM_BYTES = 8 * 1024 * 1024 - 2  # the API's limit for a body, less the brackets of the array
PATHS: Mapping[str, str] = {"turn": "POST turns/batch", "feedback": "POST feedback", "update": "PATCH turns/batch"}
"""By kind, in the order in which they are sent: what is about a turn goes behind it."""


@dataclass(frozen=True)
class Entry:
    """One item, encoded when it was logged: what the host changes later does not count, and a repeat is identical."""

    kind: str
    """A key of `PATHS`."""
    id: str
    """For reports: the turn's id, or the turn that feedback or an update is about."""
    body: bytes
    """The JSON object, without line breaks."""
    tries: int = 0
    """How often the server did not know the turn that it is about."""


@dataclass
class Problem:
    """Items that did not arrive and will not be tried again."""

    kind: str
    """refused: by the server, or for their size; lost: no room, too old, too late; damaged: unreadable in the spool."""
    reason: str
    count: int = 0
    ids: list[str] = field(default_factory=list)
    """Up to 1,000, where they are known. They may hold what the host puts into ids, so no log message does."""
    errors: list[Mapping[str, Any]] = field(default_factory=list)
    """Up to 1,000 ``{"field", "message", "item"}`` as the server said it; values are never in there."""


def encode(kind: str, name: str, item: Mapping[str, Any]) -> Entry:
    """Fields that are None are left out; what JSON does not know becomes text.

    Raises:
        ValueError: a number that is not finite, a circular or deep structure, larger than a request may be.
    """
    given = {key: value for key, value in item.items() if value is not None}
    try:
        body = json.dumps(given, allow_nan=False, default=_plain, separators=(",", ":")).encode()
    except Exception as error:  # whatever the host's objects do when they are looked at
        raise ValueError(f"cannot be written as JSON ({type(error).__name__})") from None
    if len(body) > MAX_ITEM_BYTES:
        raise ValueError("larger than 8 MB")
    return Entry(kind, name, body)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    for method in ("isoformat", "tolist"):  # dates; numbers and arrays of numpy
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    return str(value)

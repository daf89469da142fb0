"""The key of a request with its assistant: every request of every program begins with it.

Remembering keys instead would be faster still, and let a revoked one live on.
"""

from __future__ import annotations

from assistants.joined import Joined, Table
from assistants.models import ApiKey, Assistant

_FOUND = Joined(
    Table(ApiKey, "key"),
    Table(Assistant, "assistant"),
    behind=f'"{ApiKey._meta.db_table}" AS key JOIN "{Assistant._meta.db_table}" AS assistant '
    "ON assistant.id = key.assistant_id WHERE key.digest = %(digest)s",
)


def find_key(digest: str) -> ApiKey | None:
    """The key with this digest, usable or not; its ``assistant`` is loaded (one query)."""
    found = _FOUND.first({"digest": digest})
    if found is None:
        return None
    key: ApiKey = found[0]
    key.assistant = found[1]
    return key

"""What was found in a text, remembered for as long as there is room: passages come back in most turns of a log.

A text is known by a keyed digest whose key lives and dies with the process: a plain digest of a short raw text could
be guessed back. Values are places and types; no text is kept.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection

from privacy.findings import Finding

# A finding takes some 150 bytes and an entry without findings about as much, so this is at most some 6 MB.
ROOM = 40_000


class Remembered:
    """The findings of the texts that were asked for last; safe for threads.

    Args:
        room: how many findings are kept; a text counts as one more than it has.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._secret = secrets.token_bytes(32)
        self._room = room
        self._used = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, text: str, entity_types: Collection[str]) -> bytes:
        """What the text is filed under when it was searched for these types."""
        digest = hashlib.blake2b(",".join(sorted(entity_types)).encode(), digest_size=24, key=self._secret)
        digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def get(self, key: bytes) -> tuple[Finding, ...] | None:
        """What was put there; None when it was never put there, or made room for others."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: bytes, found: tuple[Finding, ...]) -> None:
        """Remembers, and forgets what was not asked for longest when there is no room."""
        with self._lock:
            self._used += len(found) + 1 - (len(self._entries[key]) + 1 if key in self._entries else 0)
            self._entries[key] = found
            self._entries.move_to_end(key)
            while self._used > self._room:
                _, forgotten = self._entries.popitem(last=False)
                self._used -= len(forgotten) + 1

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
            self._used = 0

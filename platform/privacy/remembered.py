"""What was found in a text, remembered for as long as there is room: passages come back in most turns of a log.

A text is known by a keyed digest whose key lives and dies with the process: a plain digest of a short raw text could
be guessed back. Values are places, types and probabilities; no text is kept.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """What was found in the texts that were asked for last; safe for threads.

    Args:
        room: how much is kept, in the unit of `cost`.
        cost: how much of the room a value takes.
    """

    def __init__(self, room: int, cost: Callable[[Value], int]) -> None:
        self._secret = secrets.token_bytes(32)
        self._room = room
        self._cost = cost
        self._used = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, text: str, entity_types: Collection[str] = ()) -> bytes:
        """What the text is filed under when it was searched for these types."""
        digest = hashlib.blake2b(",".join(sorted(entity_types)).encode(), digest_size=24, key=self._secret)
        digest.update(b"\0" + text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def get(self, key: bytes) -> Value | None:
        """What was put there; None when it was never put there, or made room for others."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: bytes, found: Value) -> None:
        """Remembers, and forgets what was not asked for longest when there is no room."""
        with self._lock:
            self._used += self._cost(found) - (self._cost(self._entries[key]) if key in self._entries else 0)
            self._entries[key] = found
            self._entries.move_to_end(key)
            while self._used > self._room:
                _, forgotten = self._entries.popitem(last=False)
                self._used -= self._cost(forgotten)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()
            self._used = 0

"""What all questions of a house begin with, the system message, is read once and kept.

A prompt's beginning says nothing about what comes after it, so its keys and values are the same for every question that
is asked with the same adapter. Nothing of a user or a document is in it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

MIN_TOKENS = 24
"""A shorter beginning costs less to read than to fetch."""
MAX_KEPT_TOKENS = 8192
MAX_KEPT_BYTES = 512 * 1024**2
"""Of all beginnings together. A token takes 10 kB with the bundled model and 230 kB with one like Qwen3-0.6B, which so
keeps 2,300."""

Key = tuple[str | None, tuple[int, ...]]


class Prefixes:
    """Beginnings that were read, the least recently used forgotten first. For one thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Any] = OrderedDict()
        self._tokens = self._bytes = 0
        self.reused = 0

    def get(self, key: Key) -> Any:
        """Keys and values as they were put; None: not kept."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def takes(self, size: int) -> bool:
        """Whether one of so many bytes is kept at all. One that fills the room alone would push out all others."""
        return size <= MAX_KEPT_BYTES

    def put(self, key: Key, layers: Any) -> None:
        """Keeps it, unless `takes` says no."""
        if not self.takes(_bytes_of(layers)):
            return
        self._kept[key] = layers
        self._count(key, layers, 1)
        while (self._tokens > MAX_KEPT_TOKENS or self._bytes > MAX_KEPT_BYTES) and len(self._kept) > 1:
            self._count(*self._kept.popitem(last=False), -1)

    def forget(self, adapter: str) -> None:
        """An adapter that goes takes along what was read with it."""
        for key in [key for key in self._kept if key[0] == adapter]:
            self._count(key, self._kept.pop(key), -1)

    def _count(self, key: Key, layers: Any, sign: int) -> None:
        self._tokens += sign * len(key[1])
        self._bytes += sign * _bytes_of(layers)


def _bytes_of(layers: Any) -> int:
    parts = [part for pair in layers for part in pair] if isinstance(layers, list) else [layers]
    return sum(part.nbytes for part in parts)

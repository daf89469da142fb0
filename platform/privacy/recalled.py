"""Which digests were met before, of those that were asked for last: a bounded set."""

from __future__ import annotations


class Recalled:
    """Holds between ``room`` and twice ``room`` digests. Two generations instead of an order of use: a digest that is
    asked for again moves to the young one, and when that is full the old one goes. A set of 16 bytes each takes a
    fraction of what an ordered dictionary does.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._young:
            return True
        if digest not in self._old:
            return False
        self.add(digest)
        return True

    def add(self, digest: bytes) -> None:
        self._old.discard(digest)
        self._young.add(digest)
        if len(self._young) >= self._room:
            self._old, self._young = self._young, set()

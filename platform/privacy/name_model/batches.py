"""Windows in groups that are computed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

BATCH_PIECES = 128
"""What lies between two products should stay in the processor's cache."""
_WORTHWHILE_PIECES = 64
"""From this many on a batch costs little beyond its pieces."""
_UNLIKE = 1.5

Item = TypeVar("Item")


def grouped(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Groups of at most BATCH_PIECES pieces (one longer item alone is a group), of like length where items come by
    falling length, since attention pads all to the longest. Takes items only as far as they are needed."""
    group: list[Item] = []
    size = longest = 0
    for item in items:
        pieces = length(item)
        unlike = size >= _WORTHWHILE_PIECES and _UNLIKE * pieces < longest
        if group and (unlike or size + pieces > BATCH_PIECES):
            yield group
            group, size = [], 0
        if not group:
            longest = pieces
        group.append(item)
        size += pieces
    if group:
        yield group

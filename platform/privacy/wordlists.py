"""Word lists written as text, so that they can be read and compared line by line."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """The white-space separated words of a text."""
    return tuple(text.split())

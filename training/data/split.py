"""Which split a group belongs to: decided by its name alone, so that the same group is never in two."""

from __future__ import annotations

import hashlib


def bucket(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on name and seed only."""
    digest = hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_validation(group: str, *, share: float, seed: int) -> bool:
    return bucket(group, seed) < share

"""Keyed hashes are HMAC-SHA-256, whatever the length of key and text."""

from __future__ import annotations

import hmac
import random
from typing import Any

import pytest

from assistants.vault import hasher, keyed_hash


@pytest.mark.parametrize("key", ["k", "x" * 64, "y" * 65, "ü" * 200])
def test_keyed_hashes_are_those_of_the_standard_library(settings: Any, key: str) -> None:
    settings.RATCHET_HASH_KEY = key
    for length in (0, 1, 63, 64, 1983, 1984, 1985, 2047, 2048, 3968, 100_001):
        text = random.Random(length).randbytes(length)
        wanted = hmac.digest(key.encode(), b"payload\x1e" + text, "sha256")
        assert keyed_hash("payload", text) == hasher("payload")(text) == wanted


def test_parts_are_kept_apart(settings: Any) -> None:
    key = settings.RATCHET_HASH_KEY.encode()
    wanted = hmac.digest(key, b"erased\x1e5\x1fa\xed\xb2\x80\x1fx", "sha256")
    assert keyed_hash("erased", 5, "a\udc80", b"x") == wanted
    assert len({keyed_hash("a", "bc"), keyed_hash("a", "b", "c"), keyed_hash("ab", "c")}) == 3

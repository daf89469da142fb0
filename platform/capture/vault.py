"""Under which ids and keys the log is kept, beside what `assistants.vault` has for all rooms."""

from __future__ import annotations

import re
from collections.abc import Iterable

from assistants.vault import PayloadUnreadable, decrypt, encrypt, encrypt_all, hasher, keyed_hash

__all__ = [
    "PayloadUnreadable",
    "conversation_key",
    "decrypt",
    "encrypt",
    "encrypt_all",
    "entities_key",
    "erased_id",
    "erased_ids",
    "keyed_hash",
    "stored_id",
]

_SPEAKING = re.compile(r"[@\s]|\+[0-9]{7,15}(?![0-9])")


def stored_id(given: str) -> str:
    """The id under which a client's id is kept.

    Ids stay as they are, so that people find their own again; but one with an at-sign, a space or a telephone number
    (``+`` and its digits, which is how chatbots of messengers name a conversation) says who it was, and is kept as a
    keyed hash. Deterministic: looking up by the client's own id still works.
    """
    return f"h-{keyed_hash('id', given).hex()[:40]}" if _SPEAKING.search(given) else given


def erased_id(assistant_id: int, name: str) -> str:
    """Under which an erased id is still known, so that a repeat of the post does not bring the turn back; ``name`` as
    `stored_id` gives it."""
    return erased_ids(assistant_id, [name])[0]


def erased_ids(assistant_id: int, names: Iterable[str]) -> list[str]:
    """`erased_id` of each."""
    hashed, prefix = hasher("erased"), f"{assistant_id}\x1f".encode()
    return [f"erased-{hashed(prefix + name.encode('utf-8', 'surrogatepass')).hex()[:48]}" for name in names]


def conversation_key(assistant_id: int, conversation: str) -> str:
    """Names a conversation in quarantine; ``conversation`` as `stored_id` gives it. Hex, 64 digits."""
    return keyed_hash("conversation", assistant_id, conversation).hex()


def entities_key(assistant_id: int, conversation: str) -> bytes:
    """Key of one conversation's entity table: guesses tested in one conversation tell nothing about another."""
    return keyed_hash("entities", assistant_id, conversation)

"""Encryption of what waits in quarantine, and keyed hashes of what must be recognised again but not read."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class PayloadUnreadable(Exception):
    """No key that we hold opens this payload."""


@lru_cache(maxsize=4)
def keyring(keys: str) -> MultiFernet:
    """Keys separated by commas: the first closes, all of them open.

    Raises:
        ImproperlyConfigured: one of them is no key, or there is none.
    """
    try:
        return MultiFernet([Fernet(key.strip()) for key in keys.split(",") if key.strip()])
    except ValueError as error:
        raise ImproperlyConfigured(
            "RATCHET_DATA_KEY must be one or more Fernet keys (44 characters of base64) separated by commas."
        ) from error


def encrypt(data: bytes) -> bytes:
    """Encrypts with the first key of RATCHET_DATA_KEY; the others are old ones that still open what they closed."""
    return keyring(settings.RATCHET_DATA_KEY).encrypt(data)


def decrypt(token: bytes | memoryview) -> bytes:
    """Raises:
    PayloadUnreadable: closed with a key that is not in RATCHET_DATA_KEY, or damaged.
    """
    try:
        return keyring(settings.RATCHET_DATA_KEY).decrypt(bytes(token))
    except InvalidToken:
        raise PayloadUnreadable from None


def keyed_hash(domain: str, *parts: str | int | bytes) -> bytes:
    """HMAC-SHA-256 under RATCHET_HASH_KEY; ``domain`` keeps hashes of different uses apart."""
    message = b"\x1f".join(p if isinstance(p, bytes) else str(p).encode("utf-8", "surrogatepass") for p in parts)
    return hmac.digest(settings.RATCHET_HASH_KEY.encode(), domain.encode() + b"\x1e" + message, "sha256")


_SPEAKING = re.compile(r"[@\s]")


def stored_id(given: str) -> str:
    """The id under which a client's id is kept.

    Ids stay as they are, so that people find their own again; but one with an at-sign or a space is somebody's
    address or name, and is kept as a keyed hash. Deterministic: looking up by the client's own id still works.
    """
    return f"h-{keyed_hash('id', given).hex()[:40]}" if _SPEAKING.search(given) else given


def conversation_key(assistant_id: int, conversation: str) -> str:
    """Names a conversation in quarantine; ``conversation`` as `stored_id` gives it. Hex, 64 digits."""
    return keyed_hash("conversation", assistant_id, conversation).hex()


def entities_key(assistant_id: int, conversation: str) -> bytes:
    """Key of one conversation's entity table: guesses tested in one conversation tell nothing about another."""
    return keyed_hash("entities", assistant_id, conversation)

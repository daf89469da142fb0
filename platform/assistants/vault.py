"""Encryption of what waits (quarantine, spans, uploads, values under review), and keyed hashes of what must be
recognised again but not read.

A sealed payload is ``version (1 byte) | key id (4) | salt (12) | nonce (12) | AES-256-GCM ciphertext and tag (16)``.
Payloads are closed with keys derived from the data key and a salt, which those of one batch share: random nonces under
one key would be safe for some four thousand million payloads only, which this takes in a few weeks at its full rate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_VERSION = b"\x01"
_ID, _SALT, _NONCE = 4, 12, 12
HEADER = len(_VERSION) + _ID
"""Bytes at the beginning of a sealed payload that tell with which key it was closed."""


class PayloadUnreadable(Exception):
    """No key that we hold opens this payload."""


@dataclass(frozen=True)
class Keyring:
    """``header`` begins whatever is closed now; ``keys`` are all that open, by their headers."""

    header: bytes
    keys: dict[bytes, bytes]


@lru_cache(maxsize=4)
def keyring(keys: str) -> Keyring:
    """Keys separated by commas: the first closes, all of them open.

    Raises:
        ImproperlyConfigured: one of them is no key, or there is none.
    """
    try:
        raw = [base64.urlsafe_b64decode(key.strip()) for key in keys.split(",") if key.strip()]
    except (binascii.Error, ValueError):
        raw = []
    if not raw or any(len(key) != 32 for key in raw):
        raise ImproperlyConfigured(
            "RATCHET_DATA_KEY must be one or more keys of 32 bytes (44 characters of URL-safe base64) with commas."
        )
    found = {_VERSION + hashlib.sha256(b"ratchet key id\x1e" + key).digest()[:_ID]: key for key in raw}
    return Keyring(next(iter(found)), found)


def encrypt(data: bytes) -> bytes:
    """Encrypts with the first key of RATCHET_DATA_KEY; the others are old ones that still open what they closed."""
    return encrypt_all([data])[0]


def encrypt_all(batch: Iterable[bytes]) -> list[bytes]:
    """As `encrypt`, for some thousands at most: each under a nonce of its own, all under one key and its salt."""
    ring = keyring(settings.RATCHET_DATA_KEY)
    salt = os.urandom(_SALT)
    cipher = _cipher(ring.keys[ring.header], salt)
    found = []
    for data in batch:
        nonce = os.urandom(_NONCE)
        head = ring.header + salt + nonce
        found.append(head + cipher.encrypt(nonce, data, head))
    return found


def decrypt(token: bytes | memoryview) -> bytes:
    """Raises:
    PayloadUnreadable: closed with a key that is not in RATCHET_DATA_KEY, or damaged.
    """
    sealed = bytes(token)
    key = keyring(settings.RATCHET_DATA_KEY).keys.get(sealed[:HEADER])
    head, body = sealed[: HEADER + _SALT + _NONCE], sealed[HEADER + _SALT + _NONCE :]
    if key is None or len(body) < 16:
        raise PayloadUnreadable
    salt, nonce = head[HEADER : HEADER + _SALT], head[HEADER + _SALT :]
    try:
        return _cipher(key, salt).decrypt(nonce, body, head)
    except InvalidTag:
        raise PayloadUnreadable from None


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, b"payload\x1e" + salt, "sha256"))


def keyed_hash(domain: str, *parts: str | int | bytes) -> bytes:
    """HMAC-SHA-256 under RATCHET_HASH_KEY; ``domain`` keeps hashes of different uses apart."""
    message = b"\x1f".join([p if isinstance(p, bytes) else str(p).encode("utf-8", "surrogatepass") for p in parts])
    return hasher(domain)(message)


def hasher(domain: str) -> Callable[[bytes], bytes]:
    """`keyed_hash` of one part, for many."""
    return _hasher(settings.RATCHET_HASH_KEY, domain)


@lru_cache(maxsize=64)
def _hasher(key: str, domain: str) -> Callable[[bytes], bytes]:
    """HMAC by its definition, of two hashes that have taken the key in and are copied. Python's own, of which each step
    is a call of Python, takes four times as long for what is short; and it lets go of the interpreter's lock for
    whatever is long, to wait for it behind all other threads."""
    secret = key.encode()
    if len(secret) > _BLOCK:
        secret = hashlib.sha256(secret).digest()
    secret = secret.ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(secret.translate(_INNER) + domain.encode() + b"\x1e")
    outer = hashlib.sha256(secret.translate(_OUTER))

    def hashed(message: bytes) -> bytes:
        mac = inner.copy()
        if len(message) < _LETS_GO:
            mac.update(message)
        else:
            view = memoryview(message)
            for start in range(0, len(message), _PIECE):
                mac.update(view[start : start + _PIECE])
        whole = outer.copy()
        whole.update(mac.digest())
        return whole.digest()

    return hashed


_BLOCK = 64
_INNER, _OUTER = (bytes(value ^ mask for value in range(256)) for mask in (0x36, 0x5C))
_LETS_GO, _PIECE = 2048, 31 * _BLOCK
"""From how many bytes on a hash lets go of the interpreter's lock; whole blocks that are fewer."""

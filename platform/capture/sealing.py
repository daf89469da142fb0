"""Payloads on their way into quarantine and out of it: packed with Zstandard, then encrypted.

Most of what PostgreSQL does for a payload goes by its bytes: pieces out of line, their index, the log that is on disk
before an answer. A turn with its passages packs to some half of its size, in less time than that takes.

Packing before encrypting lets lengths tell more than they did: not only how long a text is, but how much it repeats
itself. Each payload is packed alone, with no dictionary and nothing left over from another, so it tells nothing of any
other. Within one, somebody who can put texts of his choice into the same turn as the secret that he looks for, again
and again, and see the bytes that each takes, could guess at it as from packed pages under TLS; the sizes are shown to
privacy officers only, and whoever reads the database's files otherwise would have to have the same turn posted to it
thousands of times.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zstandard

from assistants.vault import PayloadUnreadable, decrypt

_FAST = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=17, chain_log=14, hash_log=11, search_log=1, min_match=7
)
"""As level 1, but for two things: a table of 8 kB instead of 128, which pushes less out of the processor's cache, and
no repeats of less than seven bytes, each of which costs as much as it saves (docs/log.md)."""
_COMPUTING = threading.local()
"""Neither a compressor nor a decompressor may be used by two threads at once."""


def packed_all(contents: Sequence[bytes]) -> list[bytes]:
    """Each by itself. Lets go of the interpreter's lock once for all of them: taken back for each, it would be handed
    to and fro between threads that compute."""
    if not contents:
        return []
    if not hasattr(_COMPUTING, "packer"):
        _COMPUTING.packer = zstandard.ZstdCompressor(compression_params=_FAST)
    return [segment.tobytes() for segment in _COMPUTING.packer.multi_compress_to_buffer(list(contents))]


def content_of(payload: bytes | memoryview) -> bytes:
    """The content of a payload of the quarantine, or of waiting spans.

    Raises:
        PayloadUnreadable: no key of ours opens it, or it is damaged.
    """
    content = decrypt(payload)
    if not content.startswith(zstandard.FRAME_HEADER):  # JSON begins otherwise
        return content
    try:
        return zstandard.ZstdDecompressor().decompress(content)
    except zstandard.ZstdError:
        raise PayloadUnreadable from None

"""Rows of chunks as the bytes of a binary COPY, made by the column for many rows at once.

Row by row, psycopg's adapters took as long for a row's nine values as the server takes for its largest index.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from knowledge.chunking import ChunkText
    from knowledge.models import Document
    from knowledge.storing import Vectors

COLUMNS = ("assistant_id", "document_id", "position", "headings", "text", "digest", "tokens", "embedding",
           "sentence_embeddings")  # fmt: skip
BLOCK = 256
"""Rows of a block: a megabyte where chunks have three sentences. The server reads one while the next is made."""
_BEGIN, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_VARCHAR = 1043
_LENGTH = struct.Struct(">i")


def stream(document: Document, chunks: Sequence[tuple[int, ChunkText, Vectors]]) -> Iterator[bytes]:
    """Blocks of a ``COPY … FROM STDIN WITH (FORMAT BINARY)`` of COLUMNS, beginning and end included.

    Raises:
        ValueError: the vectors are not all of one length.
    """
    yield _BEGIN
    known: dict[tuple[str, ...], bytes] = {}
    for start in range(0, len(chunks), BLOCK):
        yield _block(document, chunks[start : start + BLOCK], known)
    yield _END


def _block(
    document: Document, rows: Sequence[tuple[int, ChunkText, Vectors]], known: dict[tuple[str, ...], bytes]
) -> bytes:
    """``known``: headings as they were written before; the chunks of a section share them."""
    texts = [chunk.text.encode() for _, chunk, _ in rows]
    before = _before(document, [position for position, _, _ in rows])
    between = _between(texts, rows)
    parts: list[bytes | memoryview] = []
    for (_, chunk, vectors), text, first, second in zip(rows, texts, before, between, strict=True):
        if (headings := known.get(chunk.headings)) is None:
            headings = known[chunk.headings] = _headings(chunk.headings)
        parts += (first, headings, _LENGTH.pack(len(text)), text, second, vectors.packed)
    return b"".join(parts)


def _before(document: Document, positions: Sequence[int]) -> list[memoryview]:
    """Of each row what stands before its headings: how many columns there are, two keys, the position."""
    made = np.empty(len(positions), dtype=[
        ("columns", ">i2"), ("l1", ">i4"), ("assistant", ">i8"), ("l2", ">i4"), ("document", ">i8"),
        ("l3", ">i4"), ("position", ">i4"),
    ])  # fmt: skip
    made["columns"], made["l1"], made["l2"], made["l3"] = len(COLUMNS), 8, 8, 4
    made["assistant"], made["document"], made["position"] = document.assistant_id, document.pk, positions
    return _pieces(made)


def _between(texts: Sequence[bytes], rows: Sequence[tuple[int, ChunkText, Vectors]]) -> list[memoryview]:
    """Of each row what stands between its text and its sentences: digest, tokens, vector, and how long they are."""
    halves = np.asarray([vectors.whole for _, _, vectors in rows], dtype=np.float16)
    dimension = halves.shape[1]
    made = np.empty(len(rows), dtype=[
        ("l1", ">i4"), ("digest", "S64"), ("l2", ">i4"), ("tokens", ">i4"),
        ("l3", ">i4"), ("dimension", ">u2"), ("unused", ">u2"), ("vector", ">f2", (dimension,)), ("l4", ">i4"),
    ])  # fmt: skip
    made["l1"], made["l2"], made["l3"], made["unused"] = 64, 4, 4 + 2 * dimension, 0
    made["digest"] = [hashlib.sha256(text).hexdigest().encode() for text in texts]
    made["tokens"] = [chunk.tokens for _, chunk, _ in rows]
    made["dimension"], made["vector"] = dimension, halves
    made["l4"] = [len(vectors.packed) for _, _, vectors in rows]
    return _pieces(made)


def _headings(headings: Sequence[str]) -> bytes:
    """A varchar[] behind its length; an empty one has no dimension."""
    shape = struct.pack(">iiIii", 1, 0, _VARCHAR, len(headings), 1) if headings else struct.pack(">iiI", 0, 0, _VARCHAR)
    coded = [heading.encode() for heading in headings]
    made = shape + b"".join(_LENGTH.pack(len(heading)) + heading for heading in coded)
    return _LENGTH.pack(len(made)) + made


def _pieces(made: NDArray[np.void]) -> list[memoryview]:
    whole, size = memoryview(made.tobytes()), made.itemsize
    return [whole[at : at + size] for at in range(0, len(whole), size)]

"""Candidates on disk, and of each only what choosing needs in memory: a hundred thousand of them with their passages
would take gigabytes.

The file has no name and goes with the process; what it held of people's text is nowhere else than in the database.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from django.conf import settings

from generation.overlap import words
from knowledge.query import history_query
from training.data.candidates import Candidate
from training.data.near_kept import NearKept
from training.models import Kind, Origin

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSION = 384
WRITTEN = 1 << 20
"""Bytes that are written at a time."""
T = TypeVar("T")


@dataclass(slots=True)
class Head:
    """What is decided by. ``place`` and ``size``: where the candidate is; ``row``: of its vector. Numbers stand for
    sentences, passages and persons (`Pool.number`)."""

    place: int
    size: int
    row: int
    origin: str
    kind: str
    group: str
    question: str
    asked: str
    """With what it follows."""
    same: bytes
    """Of two rows that say the same, the same."""
    gold: tuple[int, ...]
    passages: tuple[int, ...]
    documents: tuple[str, ...]
    person: int
    turn_id: Any
    judged: bool
    """It has an answer that was judged bad."""
    weight: int = 1

    @property
    def curated(self) -> bool:
        return self.origin != Origin.SYNTHETIC

    @property
    def learnt(self) -> bool:
        """It has an answer to learn."""
        return self.origin != Origin.BAD

    @property
    def answers(self) -> bool:
        return self.kind == Kind.ANSWER and self.learnt


class Pool:
    """Grows while candidates are collected; `read` brings them back whole."""

    def __init__(self) -> None:
        # Without Python's buffer, which reads 8 kB for whatever is asked, and forgets them when it moves.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=settings.VAR_DIR, buffering=0)  # noqa: SIM115 - see __exit__
        self._end = 0
        self._waiting = bytearray()
        """What is not written yet: the last bytes."""
        self._numbers: dict[bytes, int] = {}
        self._paths: dict[str, str] = {}
        # Half precision, as the turns have it: of a hundred thousand rows 77 MB instead of twice that.
        self._vectors: NDArray[np.float16] = np.zeros((0, DIMENSION), dtype=np.float16)
        self._count = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def reserve(self, rows: int) -> None:
        """Room for the vectors of so many candidates more: growing copies them all."""
        grown = np.zeros((self._count + rows, DIMENSION), dtype=np.float16)
        grown[: self._count] = self._vectors[: self._count]
        self._vectors = grown

    def add(self, row: Candidate, vector: NDArray[np.float32] | None) -> Head:
        place, size = self.put(row)
        index = -1
        if vector is not None:
            if self._count == len(self._vectors):
                self.reserve(max(256, self._count))
            self._vectors[self._count] = vector
            index, self._count = self._count, self._count + 1
        answer = row.response or row.rejected
        asked = history_query(row.question, row.history)
        return Head(
            place=place,
            size=size,
            row=index,
            origin=str(row.origin),
            kind=str(row.kind),
            group=row.group,
            question=row.question,
            asked=asked,
            # "And how much is that?" is another question behind another one.
            same=_digest(
                *words(f"{asked}\n{row.question}"), *((row.origin == Origin.BAD, answer) if row.curated else ())
            ),
            gold=tuple(self.number(text) for text in row.gold),
            passages=tuple(self.number(text) for text in row.cited_texts),
            documents=tuple(self._paths.setdefault(path, path) for path in sorted(row.answered_from)),
            person=self.number(row.person) if row.person else -1,
            turn_id=row.turn_id,
            judged=bool(row.rejected),
        )

    def move(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Gives candidates that were added with a vector another one."""
        self._vectors[rows] = vectors

    def number(self, text: str) -> int:
        return self._numbers.setdefault(_digest(text), len(self._numbers))

    def put(self, thing: Any) -> tuple[int, int]:
        """Returns its place and its size."""
        data = pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
        place, self._end = self._end, self._end + len(data)
        self._waiting += data
        if len(self._waiting) >= WRITTEN:
            self._write()
        return place, len(data)

    def get(self, place: int, size: int) -> Any:
        return pickle.loads(self.raw(place, size))  # noqa: S301 - our own file, which nobody else can open

    def raw(self, place: int, size: int) -> bytes:
        """As it was pickled."""
        if place + size > self._end - len(self._waiting):
            self._write()
        return os.pread(self._file.fileno(), size, place)

    def _write(self) -> None:
        rest = memoryview(bytes(self._waiting))
        while rest:  # a single write may take less
            rest = rest[self._file.write(rest) :]
        self._waiting.clear()

    def read(self, head: Head) -> Candidate:
        found: Candidate = self.get(head.place, head.size)
        return found

    def vectors(self, heads: Sequence[Head]) -> NDArray[np.float32]:
        """Unit vectors of the history-aware questions, shape (n, 384)."""
        return self._vectors[[head.row for head in heads]].astype(np.float32)

    def near_kept(self, room: int) -> NearKept:
        """None is kept yet. The vectors are the pool's own: no copy of them is made."""
        return NearKept(self._vectors[: self._count], room)


def batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """`itertools.batched`, which Python 3.11 has not."""
    rest = iter(things)
    while part := list(islice(rest, size)):
        yield part


def _digest(*parts: object) -> bytes:
    joined = "\x1f".join(map(str, parts))
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).digest()

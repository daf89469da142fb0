"""Vectors of questions for a build. A large one takes stored vectors, and embeds a sample of them and the benchmark's
questions in a process beside it, which ends as soon as it has embedded them: it takes up to 600 MB, more than all else
of the build together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import TYPE_CHECKING, Protocol

import numpy as np

from generation.prompts import Message
from knowledge.query import history_query, question_vectors
from training.data import embed_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASIDE = 10_000
"""Rows from which it is done so: the process takes some seconds to start."""
Asked = tuple[str, Sequence[Message]]
"""A question and its history."""


class Embed(Protocol):
    """`knowledge.query.question_vectors`, wherever it runs."""

    def __call__(self, asked: Sequence[Asked], glossary: Mapping[str, str] | None = None) -> NDArray[np.float32]: ...


class Aside:
    """Embeds in a process of its own, which is there while it is needed."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._known: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._begun: list[tuple[Sequence[Asked], Mapping[str, str] | None, Future[NDArray[np.float32]]]] = []

    def __call__(self, asked: Sequence[Asked], glossary: Mapping[str, str] | None = None) -> NDArray[np.float32]:
        if self._begun:
            self._settle()
        keys = _keys(asked, glossary)
        if asked and all(key in self._known for key in keys):
            return np.stack([self._known[key] for key in keys])
        return self._embedded(asked, glossary)

    def ahead(self, wanted: Iterable[tuple[Sequence[Asked], Mapping[str, str]]]) -> None:
        """Begins to embed what will be asked for; the first question waits for it. The process goes once it is done;
        another one comes for whatever else is asked."""
        for asked, glossary in wanted:
            if asked:
                with suppress(BrokenProcessPool):  # it comes to light when it is asked for
                    future = self._started().submit(embed_helper.vectors, asked, glossary)
                    self._begun.append((asked, glossary, future))
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def _settle(self) -> None:
        for asked, glossary, future in self._begun:
            with suppress(BrokenProcessPool):  # what it does not say is embedded when it is asked for
                self._known.update(zip(_keys(asked, glossary), future.result(), strict=True))
        self._begun.clear()

    def close(self) -> None:
        for _, _, future in self._begun:  # nobody asks any more: its process ends behind what it is at
            future.cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _embedded(self, asked: Sequence[Asked], glossary: Mapping[str, str] | None) -> NDArray[np.float32]:
        try:
            return self._started().submit(embed_helper.vectors, asked, glossary).result()
        except BrokenProcessPool:  # killed: the same is done here, and takes what memory it takes
            return question_vectors(asked, glossary)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A fork of a process with threads may hang, so it is started afresh.
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=embed_helper.begin)
        return self._pool


@contextmanager
def embedding_for(
    rows: int, first: Callable[[], Iterable[tuple[Sequence[Asked], Mapping[str, str]]]]
) -> Iterator[Embed]:
    """``first``: the questions that a build will have embedded where every vector is stored."""
    if rows < ASIDE:
        yield question_vectors
        return
    aside = Aside()
    try:
        aside.ahead(first())
        yield aside
    finally:
        aside.close()


def _keys(asked: Sequence[Asked], glossary: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return [(history_query(q, (), glossary), history_query(q, history, glossary)) for q, history in asked]

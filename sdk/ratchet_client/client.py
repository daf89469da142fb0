"""What a host calls."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from typing import Any, Concatenate, ParamSpec, TypeVar

from .background import Background
from .items import __version__, encode

_TOO_MANY = 51
"""The API takes 50 contexts, and refuses this many; without an end to them the host would wait."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Client(Background):
    """Logs turns, feedback and updates in the background, from any number of threads; one per process is enough.

    url, key: where Ratchet is (``https://host``, with its path behind a proxy), and an API key that may log.
    spool: a folder for what cannot be sent now; without one it waits in memory. It holds users' texts in clear, so it
        wants a private place. Processes may share it. ``spool_bytes`` for all of them, ``spool_days`` until given up.
    flush_seconds, flush_items: a batch goes after that time, or when there are so many items (1 to 1,000).
    queue_items, queue_bytes: what memory holds at most; what comes then is lost, and counted.
    timeout: seconds for one request. retry_seconds: the first and the longest pause after a miss.
    close_seconds: how long `close`, also at exit, may take to send what is queued.
    on_problem: called with every `Problem`, in the client's own thread (the last time by `close`).

    Raises:
        ValueError: an argument that makes no sense. Nothing raises after that.
    """

    def log_turn(
        self,
        /,
        question: str,
        response: str,
        *,
        contexts: Sequence[str | Mapping[str, Any]] = (),
        conversation: str | None = None,
        id: str | None = None,
        time: datetime | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        user: str | Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """Puts a turn into the queue and returns its id, which feedback names. Fields as in docs/api.md.

        contexts: passages in rank order, texts or ``{"text", "title", "source", "score"}``. id: made up here unless
        given. time: when it was asked; now, unless given. user: who asked, for masking; never stored.
        more: other fields of the API: ``history``, ``model``, ``adapter``, ``latency_ms``, ``prompt_tokens``,
        ``completion_tokens``, ``tags``, ``outcome``, ``client`` (the host's name and version).
        """
        name = id if isinstance(id, str) and id else uuid.uuid4().hex
        item: dict[str, Any] = {"id": name, "conversation": conversation, "question": question, "response": response}
        try:
            item["time"] = time or datetime.now(timezone.utc)
            given = islice([contexts] if isinstance(contexts, str) else contexts, _TOO_MANY)
            item["contexts"] = [{"text": text} if isinstance(text, str) else text for text in given]
            item["metadata"] = {**(metadata or {}), **({"user": user} if user else {})}
            self._put(encode("turn", name, {"client": f"ratchet-client/{__version__}", **more, **item}))
        except Exception as error:
            self._reject(name, str(error) if isinstance(error, ValueError) else f"not a turn ({type(error).__name__})")
        return name

    def feedback(
        self, /, turn: str, kind: str, *, value: float | bool | None = None, text: str | None = None,
        metric: str | None = None, id: str | None = None, time: datetime | str | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Puts feedback about a turn into the queue: ``thumb`` (value 1 or -1), ``rating`` (1 to 5), ``correction`` or
        ``comment`` (text), ``escalation``, ``metric`` (its name as metric; value a number, True or False). Without an
        id the same feedback on the same turn counts once. time: when it was given; now, unless given."""
        item = {**more, "turn": turn, "kind": kind, "value": value, "text": text, "metric": metric, "id": id}
        self._put_about("feedback", turn, {**item, "time": time or datetime.now(timezone.utc)})

    def update(self, /, turn: str, *, id: str | None = None, time: datetime | str | None = None, **more: Any) -> None:
        """Puts into the queue what became known of a turn later: ``outcome``, ``latency_ms``, ``prompt_tokens``,
        ``completion_tokens`` are set, ``tags`` added, ``metadata`` merged. id: made up here unless given; it counts
        once. time: when it was known; now, unless given. Of two updates the one that was known later counts."""
        own = {"turn": turn, "update_id": id or uuid.uuid4().hex, "update_time": time or datetime.now(timezone.utc)}
        self._put_about("update", turn, {**more, **own})

    def _put_about(self, kind: str, turn: str, item: Mapping[str, Any]) -> None:
        try:
            self._put(encode(kind, str(turn), item))
        except ValueError as error:
            self._reject(str(turn), str(error))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _awaitable(
    method: Callable[Concatenate[Client, _P], _R], *, waits: bool = False
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _R]]:
    @functools.wraps(method)
    async def call(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if waits:
            return await asyncio.to_thread(method, self.sync, *args, **kwargs)
        return method(self.sync, *args, **kwargs)

    return call


class AsyncClient:
    """`Client` to be awaited. It sends from a thread of its own all the same: it needs no loop, and outlives one."""

    def __init__(self, url: str, key: str, **options: Any) -> None:
        self.sync = Client(url, key, **options)

    log_turn = _awaitable(Client.log_turn)
    feedback = _awaitable(Client.feedback)
    update = _awaitable(Client.update)
    flush = _awaitable(Client.flush, waits=True)
    close = _awaitable(Client.close, waits=True)

    @property
    def stats(self) -> Counter[str]:
        return self.sync.stats

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

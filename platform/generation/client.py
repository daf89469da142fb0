"""Speaks to our engine process. Imports neither torch nor transformers, so web processes stay small."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.engines import (
    EngineError,
    EngineHealth,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    LoadedAdapter,
)
from generation.http1 import NoReply, Reply
from generation.transport import Coming, Transport
from generation.wire import MAX_DEADLINE, MAX_REQUESTS, MAX_TEXTS, error_from_json, request_to_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_SECONDS = 130.0
"""Read limit of a completion without deadline: a little more than the engine itself allows."""
RERANK_SECONDS = 20.0
QUESTION_SECONDS = 10.0
"""Read limit of a question's vectors, made in some milliseconds: an engine that hangs must not hold every chat."""
LOAD_SECONDS = 30.0
"""Of loading an adapter. The engine goes on with it all the same, and has it when it is asked for again."""
LOOK_SECONDS = 5.0
"""Of what the engine answers beside its work, whatever it computes."""
GRACE_SECONDS = 10.0
HINT = "Start it with `python manage.py up`, or check RATCHET_ENGINE_URL."


class EngineClient:
    """An `Engine` over HTTP. One instance serves many threads and event loops, also after a fork."""

    def __init__(self, url: str, token: str = "") -> None:
        """``url``: ``unix:/path/engine.sock`` or ``http://host:port``; ``token``: what RATCHET_ENGINE_KEY holds."""
        self.url = url
        self._transport = Transport(url, token)

    # --- For jobs: blocking -------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """Sent in groups that the engine takes at once."""
        results: list[GenerationResult] = []
        for start in range(0, len(requests), MAX_REQUESTS):
            group = requests[start : start + MAX_REQUESTS]
            answer = self._call("POST", "/generate", _generate_body(group), seconds=_patience(group))
            results += _results(answer.json())
        return results

    def embed(self, texts: Sequence[str], *, seconds: float = DEFAULT_SECONDS) -> NDArray[np.float32]:
        """``seconds``: the read limit of each call; the engine takes up to `MAX_TEXTS` texts in one."""
        parts = [
            _vectors(
                self._call("POST", "/embeddings", {"texts": list(texts[start : start + MAX_TEXTS])}, seconds=seconds)
            )
            for start in range(0, max(len(texts), 1), MAX_TEXTS)
        ]
        return _joined(parts)

    def begin_embed(self, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
        """Sends up to `MAX_TEXTS` texts; what is returned waits for the vectors, and raises what `embed` raises."""
        coming = self._transport.send("POST", "/embeddings", {"texts": list(texts)}, seconds=QUESTION_SECONDS)
        return lambda: _vectors(self._arrived(coming))

    def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question, by the engine's cross-encoder."""
        answer = self._call("POST", "/rerank", {"question": question, "texts": list(texts)}, seconds=RERANK_SECONDS)
        return [float(score) for score in answer.json()["scores"]]

    def adapters(self) -> list[LoadedAdapter]:
        answer = self._call("GET", "/adapters", seconds=LOOK_SECONDS)
        return [LoadedAdapter(**item) for item in answer.json()["adapters"]]

    def load_adapter(
        self, name: str, folder: Path, *, base_digest: str | None = None, prompt_digest: str | None = None
    ) -> LoadedAdapter:
        body = _load_body(name, folder, base_digest, prompt_digest)
        return LoadedAdapter(**self._call("POST", "/adapters", body, seconds=LOAD_SECONDS).json())

    def unload_adapter(self, name: str) -> None:
        self._call("DELETE", f"/adapters/{name}")

    def metrics(self) -> bytes:
        """What the engine counts, in Prometheus' text format."""
        return self._call("GET", "/metrics", seconds=LOOK_SECONDS).content

    def health(self) -> EngineHealth:
        return _health(self._call("GET", "/health", seconds=LOOK_SECONDS).json())

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = DEFAULT_SECONDS
    ) -> Reply:
        return self._arrived(self._transport.send(method, path, body, seconds=seconds))

    def _arrived(self, coming: Coming) -> Reply:
        try:
            return _checked(coming())
        except NoReply as error:
            raise _unreachable(self.url, late=error.late) from error

    # --- For the web: asynchronous ------------------------------------------------------------------------------------

    async def agenerate(self, request: GenerationRequest) -> GenerationResult:
        """One completion. Cancelling the task stops the work in the engine."""
        answer = await self._acall("POST", "/generate", _generate_body([request]), seconds=_patience([request]))
        return _results(answer.json())[0]

    async def stream(self, request: GenerationRequest) -> AsyncIterator[str]:
        """Pieces of the completion; see `astream` for how it ended."""
        async with aclosing(self.astream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield piece

    async def astream(self, request: GenerationRequest) -> AsyncGenerator[str | GenerationResult, None]:
        """Pieces of the completion as they are written, then its result. Closing the iterator stops the work."""
        lines = self._transport.alines("/stream", request_to_json(request), seconds=_patience([request]))
        try:
            async with aclosing(lines):
                async for line in lines:
                    if isinstance(line, Reply):
                        _checked(line)
                    if not isinstance(line, bytes) or not line.startswith(b"data: "):
                        continue
                    event = json.loads(line.removeprefix(b"data: "))
                    if "text" in event:
                        yield str(event["text"])
                    elif "result" in event:
                        yield GenerationResult(**event["result"])
                        return
                    else:
                        raise error_from_json(event)
        except NoReply as error:
            raise _unreachable(self.url, late=error.late) from error
        except ValueError as error:
            raise _unreachable(self.url) from error
        raise EngineUnavailable("The engine ended in the middle of an answer.", HINT)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        parts = [
            _vectors(await self._acall("POST", "/embeddings", {"texts": list(texts[start : start + MAX_TEXTS])}))
            for start in range(0, max(len(texts), 1), MAX_TEXTS)
        ]
        return _joined(parts)

    async def aload_adapter(
        self, name: str, folder: Path, *, base_digest: str | None = None, prompt_digest: str | None = None
    ) -> LoadedAdapter:
        answer = await self._acall("POST", "/adapters", _load_body(name, folder, base_digest, prompt_digest))
        return LoadedAdapter(**answer.json())

    async def ahealth(self) -> EngineHealth:
        return _health((await self._acall("GET", "/health", seconds=LOOK_SECONDS)).json())

    async def _acall(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = DEFAULT_SECONDS
    ) -> Reply:
        try:
            return _checked(await self._transport.acall(method, path, body, seconds=seconds))
        except NoReply as error:
            raise _unreachable(self.url, late=error.late) from error


@lru_cache(maxsize=8)
def default_client(url: str, token: str = "") -> EngineClient:
    """The same client for the same address, so that connections are reused."""
    return EngineClient(url, token)


def _patience(requests: Sequence[GenerationRequest]) -> float:
    deadlines = [request.deadline for request in requests]
    known = [min(deadline, MAX_DEADLINE) for deadline in deadlines if deadline is not None]
    return max([*known, *([DEFAULT_SECONDS] if len(known) < len(deadlines) else [])]) + GRACE_SECONDS


def _generate_body(requests: Sequence[GenerationRequest]) -> dict[str, Any]:
    return {"requests": [request_to_json(request) for request in requests]}


def _load_body(name: str, folder: Path, base_digest: str | None, prompt_digest: str | None) -> dict[str, Any]:
    where = str(Path(folder).resolve())
    return {"name": name, "folder": where, "base_digest": base_digest, "prompt_digest": prompt_digest}


def _results(body: Mapping[str, Any]) -> list[GenerationResult]:
    return [GenerationResult(**item) for item in body["results"]]


def _health(body: Mapping[str, Any]) -> EngineHealth:
    tuples = {name: tuple(body.get(name, ())) for name in ("adapters", "changed")}
    return EngineHealth(**{**body, **tuples})


def _vectors(answer: Reply) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(answer.content, dtype="<f4").reshape(-1, int(answer.headers["x-dimension"])).copy()


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    import numpy as np

    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _checked(answer: Reply) -> Reply:
    if answer.is_success:
        return answer
    try:
        body = answer.json()
    except ValueError:
        body = None
    raise error_from_json(body)


def _unreachable(url: str, *, late: bool = False) -> EngineError:
    if late:
        return EngineUnavailable(f"The engine at {url} did not answer in time.", "It may be overloaded; see its log.")
    return EngineUnavailable(f"The engine at {url} does not answer.", HINT)

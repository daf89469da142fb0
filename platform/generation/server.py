"""The engine process: the base model with its adapters, and the embedder, behind a small HTTP interface.

    python -m generation.server --base models/base --uds var/engine.sock

Only the platform's own processes talk to it, over a Unix socket that no other user can open, or over loopback with a
token. One thread runs the model (`generation.scheduler`), one the embedder.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from generation.engines import (
    AdapterRefused,
    BadRequest,
    EngineBusy,
    EngineError,
    EngineHealth,
    GenerationRequest,
    GenerationResult,
    UnknownAdapter,
)
from generation.local import TransformersEngine
from generation.metrics import EngineMetrics
from generation.reranker import load_reranker
from generation.scheduler import Job, Scheduler
from generation.wire import (
    MAX_BODY_BYTES,
    MAX_REQUESTS,
    error_to_json,
    request_from_json,
    texts_from_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_RERANKED = 100
MAX_EMBED_CALLS = 96
"""Calls that may wait for the embedder; it answers one question in about 10 ms. More than completions that run and
wait: else a crowd would be refused for its questions' vectors while there is room for its answers."""
MAX_RERANK_CALLS = 32
"""Fewer: reading a hundred texts takes seconds."""
LOOK_FOR_DISCONNECT = 0.25
LOOK_AT_FILES = 30.0
log = logging.getLogger("ratchet.engine")
CLIENT_CLOSED = 499

Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """The state of the process and its endpoints."""

    def __init__(
        self,
        engine: TransformersEngine,
        *,
        token: str = "",
        adapters_root: Path | None = None,
        max_rows: int = 8,
        max_waiting: int = 64,
        reranker: str = "",
    ) -> None:
        """``adapters_root``: adapters are loaded from folders inside it only; None: from anywhere. ``reranker``: name
        or folder of a cross-encoder, loaded when it is first asked."""
        self.engine = engine
        self.metrics = EngineMetrics()
        self.scheduler = Scheduler(engine, self.metrics, max_rows=max_rows, max_waiting=max_waiting)
        self._token = token
        self._reranker = reranker
        self._root = adapters_root.resolve() if adapters_root else None
        self._embed_pool = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._embed_calls = self._rerank_calls = 0
        self.changed: tuple[str, ...] = ()

    def app(self) -> Starlette:
        routes = [
            ("/generate", "POST", self.generate),
            ("/stream", "POST", self.stream),
            ("/embeddings", "POST", self.embeddings),
            ("/rerank", "POST", self.rerank),
            ("/adapters", "GET", self.list_adapters),
            ("/adapters", "POST", self.load_adapter),
            ("/adapters/{name}", "DELETE", self.unload_adapter),
            ("/metrics", "GET", self.show_metrics),
        ]
        guarded = [Route(path, self._guard(handler), methods=[method]) for path, method, handler in routes]
        # Both spellings: /healthz and /readyz are what the rest of the platform answers to.
        open_routes = [Route(path, self.health) for path in ("/health", "/healthz", "/ready", "/readyz")]
        return Starlette(routes=[*guarded, *open_routes], lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.scheduler.start()
        await asyncio.to_thread(self._warm_up)
        watching = asyncio.create_task(self._watch())
        yield
        watching.cancel()
        await asyncio.to_thread(self.scheduler.stop)
        self._embed_pool.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        """Notices files of adapters that change under a running engine."""
        while True:
            await asyncio.sleep(LOOK_AT_FILES)
            await asyncio.to_thread(self.look_at_files)

    def look_at_files(self) -> None:
        changed = tuple(self.engine.changed())
        for name in set(changed) - set(self.changed):
            log.error("engine: the files of adapter %s have changed; what was loaded goes on answering.", name)
        self.changed = changed
        self.metrics.changed.set(len(changed))

    def _warm_up(self) -> None:
        """The first pass through a model allocates and loads a good deal: not at the first user's cost."""
        request = GenerationRequest(messages=[{"role": "user", "content": "Question: Ready?"}], max_new_tokens=2)
        self.scheduler.submit([request])[0].done.result(timeout=300)
        self.engine.embed(["Ready?"])

    def _guard(self, handler: Handler) -> Handler:
        """Token, body limit, and every error of the engine as JSON."""

        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
            if self._token and not hmac.compare_digest(given, self._token.encode()):
                error = EngineError("The engine's token is missing or wrong.", "Set RATCHET_ENGINE_KEY on both sides.")
                return JSONResponse(error_to_json(error), status_code=401)
            try:
                return await handler(request)
            except EngineError as error:
                headers = {"Retry-After": str(round(error.retry_after + 0.5))} if isinstance(error, EngineBusy) else {}
                return JSONResponse(error_to_json(error), status_code=error.status, headers=headers)

        return guarded

    # --- Endpoints ----------------------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> Response:
        body = await _body(request)
        items = body.get("requests")
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_REQUESTS:
            raise BadRequest(f"requests must be a list of 1 to {MAX_REQUESTS} requests.")
        jobs = self.scheduler.submit([request_from_json(item) for item in items])
        try:
            results = await self._results(request, jobs)
        finally:
            for job in jobs:
                job.cancel()  # without effect on those that are done
        if results is None:
            return Response(status_code=CLIENT_CLOSED)  # nobody reads it
        return JSONResponse({"results": [asdict(result) for result in results]})

    async def _results(self, request: Request, jobs: Sequence[Job]) -> list[GenerationResult] | None:
        """None when the caller has gone."""
        gathered = asyncio.gather(*(asyncio.wrap_future(job.done) for job in jobs))
        while True:
            done, _ = await asyncio.wait({gathered}, timeout=LOOK_FOR_DISCONNECT)
            if done:
                return gathered.result()
            if await request.is_disconnected():
                gathered.cancel()
                return None

    async def stream(self, request: Request) -> Response:
        """Server-sent events: ``{"text"}`` pieces, then ``{"result"}`` or ``{"error"}``."""
        wanted = request_from_json(await _body(request))
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        (job,) = self.scheduler.submit([wanted], lambda piece: _call(loop, pieces, piece))
        job.done.add_done_callback(lambda _: _call(loop, pieces, None))

        async def events() -> AsyncIterator[bytes]:
            try:
                while (piece := await pieces.get()) is not None:
                    yield _event({"text": piece})
                error = job.done.exception()
                if error is None:
                    yield _event({"result": asdict(job.done.result())})
                elif isinstance(error, EngineError):
                    yield _event(error_to_json(error))
                else:
                    raise error
            finally:
                job.cancel()

        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    async def embeddings(self, request: Request) -> Response:
        """Raw float32 rows, little-endian: JSON numbers would take twenty times as long to read and write."""
        texts = texts_from_json(await _body(request))
        if self._embed_calls >= MAX_EMBED_CALLS:
            self.metrics.refused.inc()
            raise EngineBusy("Too many texts wait for the embedder.", "Try again later.", retry_after=1.0)
        self._embed_calls += 1
        try:
            vectors: NDArray[np.float32] = await asyncio.get_running_loop().run_in_executor(
                self._embed_pool, self.engine.embed, texts
            )
        finally:
            self._embed_calls -= 1
        self.metrics.embedded.inc(len(texts))
        data = vectors.astype("<f4", copy=False).tobytes()
        return Response(data, media_type="application/octet-stream", headers={"X-Dimension": str(vectors.shape[1])})

    async def rerank(self, request: Request) -> Response:
        """Scores of texts for a question. Waits its turn behind the embedder's calls: both want the same core."""
        body = await _body(request)
        question, texts = body.get("question"), texts_from_json(body)
        if not isinstance(question, str) or len(texts) > MAX_RERANKED:
            raise BadRequest(f"question must be a text, and texts at most {MAX_RERANKED}.")
        if self._rerank_calls >= MAX_RERANK_CALLS:
            self.metrics.refused.inc()
            raise EngineBusy("Too many texts wait for the reranker.", "Try again later.", retry_after=1.0)
        self._rerank_calls += 1
        try:
            scores = await asyncio.get_running_loop().run_in_executor(
                self._embed_pool, lambda: load_reranker(self._reranker).score(question, texts)
            )
        finally:
            self._rerank_calls -= 1
        return JSONResponse({"scores": scores})

    async def list_adapters(self, request: Request) -> Response:
        return JSONResponse({"adapters": [asdict(adapter) for adapter in self.engine.adapters()]})

    async def load_adapter(self, request: Request) -> Response:
        body = await _body(request)
        name, folder = body.get("name"), body.get("folder")
        digests = {key: body.get(key) for key in ("base_digest", "prompt_digest")}
        if not isinstance(name, str) or not isinstance(folder, str):
            raise BadRequest("name and folder must be texts.")
        if any(value is not None and not isinstance(value, str) for value in digests.values()):
            raise BadRequest("base_digest and prompt_digest must be texts or null.")
        inside = self._inside(folder)
        loaded = await asyncio.wrap_future(
            self.scheduler.between_steps(lambda: self.engine.load_adapter(name, inside, **digests))
        )
        self.metrics.adapters.set(len(self.engine.adapters()))
        return JSONResponse(asdict(loaded), status_code=201)

    def _inside(self, folder: str) -> Path:
        path = Path(folder)
        if self._root is not None and not path.resolve().is_relative_to(self._root):
            raise AdapterRefused(
                "The adapter folder is outside of the folder of adapters.",
                f"Move it into {self._root}.",
                reason="place",
            )
        return path

    async def unload_adapter(self, request: Request) -> Response:
        name = str(request.path_params["name"])
        if name not in {adapter.name for adapter in self.engine.adapters()}:
            raise UnknownAdapter(f"No adapter {name[:60]!r} is loaded.")
        await asyncio.wrap_future(self.scheduler.between_steps(lambda: self.engine.unload_adapter(name)))
        self.metrics.adapters.set(len(self.engine.adapters()))
        return Response(status_code=204)

    async def health(self, request: Request) -> Response:
        """What runs; 503 on the ready paths when the model thread has ended."""
        health: EngineHealth = replace(
            self.engine.health(),
            ready=self.scheduler.alive,
            running=self.scheduler.running,
            waiting=self.scheduler.waiting,
            changed=self.changed,
        )
        failed = request.url.path.startswith("/ready") and not health.ready
        return JSONResponse(asdict(health), status_code=503 if failed else 200)

    async def show_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises BadRequest when it is none or too large."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise BadRequest(f"The body is larger than {MAX_BODY_BYTES // 1024**2} MiB.", "Send less at a time.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _call(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[str | None], piece: str | None) -> None:
    """From the model thread into the event loop, which may be gone when the process stops."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


if __name__ == "__main__":
    from generation.command import main

    main()

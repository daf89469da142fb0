"""`POST /v1/chat/completions` and `GET /v1/models`: plain async views, because an answer is streamed as it is written.

Database work runs in threads and holds no connection while the engine writes. The turn is captured after the answer has
gone out; when capture is down, or the process has to stop, it is spooled, so the user never waits for the log and the
log never loses the turn of an answer that was given whole. An answer that broke off on its way leaves no turn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError, close_old_connections
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from assistants import limits
from assistants.auth import authenticate_key, require_scope
from assistants.errors import ApiError
from assistants.models import ApiKey, Scope
from generation.engines import (
    EngineBusy,
    EngineError,
    GenerationRequest,
    GenerationResult,
    PromptTooLong,
    UnknownAdapter,
)
from generation.streaming import AnswerStream
from serving import chat, spool, wire
from serving.experiments.assignment import Unit
from serving.wire import WireError

if TYPE_CHECKING:
    from generation.client import EngineClient
    from generation.openai_compatible import OpenAIEngine

logger = logging.getLogger(__name__)
T = TypeVar("T")
Piece = str | GenerationResult
View = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponseBase]]

MAX_BODY = 2_000_000
UNAVAILABLE = "service_unavailable"
_background: set[asyncio.Task[None]] = set()
"""Running captures: the event loop itself keeps only weak references to tasks."""


def client() -> EngineClient | OpenAIEngine:
    """What writes the answers."""
    # httpx is needed when the first question comes, not for every command
    if settings.RATCHET_OPENAI_BASE_URL:
        return _foreign(
            settings.RATCHET_OPENAI_BASE_URL, settings.RATCHET_OPENAI_API_KEY, settings.RATCHET_OPENAI_MODEL
        )
    from generation.client import default_client

    return default_client(settings.RATCHET_ENGINE_URL, settings.RATCHET_ENGINE_KEY)


@lru_cache(maxsize=2)
def _foreign(url: str, key: str, model: str) -> OpenAIEngine:
    from generation.openai_compatible import OpenAIEngine

    return OpenAIEngine(url, key, model)


def _in_openai_shape(view: View) -> View:
    """Every refusal of the view as OpenAI's clients expect it."""

    @wraps(view)
    async def answer(request: HttpRequest) -> HttpResponseBase:
        try:
            return await view(request)
        except WireError as error:
            return error.response()
        except ApiError as error:
            return _from_api_error(error).response()
        except EngineError as error:
            return _from_engine(error).response()
        except (OperationalError, InterfaceError):
            logger.exception("The database does not answer.")
            return WireError(503, "The service is busy or starting; try again shortly.", kind=UNAVAILABLE).response()

    return answer


@csrf_exempt
@_in_openai_shape
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        raise WireError(405, "Use POST.", headers={"Allow": "POST"})
    key = await _in_thread(lambda: _authenticate(request))
    wanted = wire.read_request(_body(request))
    asked = await _in_thread(lambda: _ask(key, wanted))
    if wanted.stream:
        return await _streamed(asked, key, wanted)
    return await _whole(asked, key, wanted)


@csrf_exempt
@_in_openai_shape
async def models(request: HttpRequest) -> HttpResponse:
    if request.method != "GET":
        raise WireError(405, "Use GET.", headers={"Allow": "GET"})
    key = await _in_thread(lambda: _authenticate(request))
    names = await _in_thread(lambda: chat.models_of(key.assistant))
    created = int(key.assistant.created_at.timestamp())
    data = [{"id": name, "object": "model", "created": created, "owned_by": key.assistant.slug} for name in names]
    return JsonResponse({"object": "list", "data": data})


async def _whole(asked: chat.Asked, key: ApiKey, wanted: wire.ChatRequest) -> JsonResponse:
    started = time.perf_counter()
    request = _generation(asked, wanted)
    try:
        result = await client().agenerate(request)
    except UnknownAdapter:
        await _load(asked)
        result = await client().agenerate(request)
    answer = chat.read_answer(asked, result.text)
    usage = _usage(result.prompt_tokens, result.completion_tokens)
    message = {"role": "assistant", "content": answer.marked, "context": chat.message_context(asked, answer)}
    _capture_later(asked, key, wanted, completion=result.text, started=started, usage=usage)
    return JsonResponse(wire.completion(asked.id, wanted.model, message, _finish(result), usage))


async def _streamed(asked: chat.Asked, key: ApiKey, wanted: wire.ChatRequest) -> StreamingHttpResponse:
    """The first piece is fetched before the response starts, so that an engine that is away is a 503, not a broken
    stream."""
    started = time.perf_counter()
    request = _generation(asked, wanted)
    pieces = client().astream(request)
    try:
        first = await anext(pieces)
    except UnknownAdapter:
        await _load(asked)
        pieces = client().astream(request)
        first = await anext(pieces)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    events = _events(asked, key, wanted, _from(first, pieces), started)
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=headers)


async def _from(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """``first`` and then ``rest``, which is closed with it: a client that leaves stops the engine's work."""
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()


async def _events(
    asked: chat.Asked, key: ApiKey, wanted: wire.ChatRequest, pieces: AsyncGenerator[Piece, None], started: float
) -> AsyncIterator[bytes]:
    """The answer as server-sent events: text as it is written, citations behind their sentences."""

    def part(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return wire.event(wire.chunk(asked.id, wanted.model, delta, finish))

    shown, completion, result = AnswerStream(asked.prompt), "", None
    yield part({"role": "assistant", "content": "", "context": chat.message_context(asked)})
    try:
        async for piece in pieces:
            if isinstance(piece, str):
                completion += piece
                if text := shown.feed(piece):
                    yield part({"content": text})
            else:
                result = piece
    except EngineError as error:
        yield wire.event(_from_engine(error).body())
        return
    finally:
        await pieces.aclose()
    if text := shown.finish():
        yield part({"content": text})
    yield part({"context": {"declined": chat.read_answer(asked, completion).declined}}, _finish(result))
    usage = _usage(result.prompt_tokens, result.completion_tokens) if result is not None else _usage(0, 0)
    if wanted.stream_options and wanted.stream_options.include_usage:
        yield wire.event({**wire.chunk(asked.id, wanted.model, {}), "choices": [], "usage": usage})
    # Before the last event: a client that has read it leaves, and takes this generator with it.
    _capture_later(asked, key, wanted, completion=completion, started=started, usage=usage)
    yield wire.event("[DONE]")


def _generation(asked: chat.Asked, wanted: wire.ChatRequest) -> GenerationRequest:
    adapter = asked.arm.adapter.engine_name if asked.arm.adapter else None
    return GenerationRequest(
        messages=asked.prompt.messages,
        adapter=adapter,
        max_new_tokens=wanted.max_new_tokens,
        deadline=settings.RATCHET_ENGINE_TIMEOUT,
    )


def _finish(result: GenerationResult | None) -> str:
    """OpenAI's word: an answer that ran out of tokens or of time was cut short."""
    return "length" if result is not None and result.finish_reason in ("length", "deadline") else "stop"


async def _load(asked: chat.Asked) -> None:
    """The engine has just started, or has never served this adapter: give it the folder and ask again."""
    adapter = asked.arm.adapter
    assert adapter is not None
    await sync_to_async(client().load_adapter, thread_sensitive=False)(
        adapter.engine_name,
        Path(settings.VAR_DIR) / adapter.folder,
        base_digest=adapter.base_digest,
        prompt_digest=asked.assistant.prompt_digest,
    )


def _authenticate(request: HttpRequest) -> ApiKey:
    key = authenticate_key(request.headers.get("Authorization"))
    require_scope(key, Scope.CHAT)
    limits.take(key)
    return key


def _body(request: HttpRequest) -> bytes:
    try:
        body = request.body
    except RequestDataTooBig:
        body = bytes(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise WireError(413, f"The body is larger than {MAX_BODY // 1_000_000} MB.")
    return body


def _ask(key: ApiKey, wanted: wire.ChatRequest) -> chat.Asked:
    try:
        arm = chat.resolve_model(key.assistant, wanted.model, Unit(wanted.conversation, wanted.user))
    except chat.UnknownModel as unknown:
        raise WireError(404, str(unknown), param="model", code="model_not_found") from unknown
    except chat.ForeignPrompt as foreign:
        raise WireError(409, str(foreign), param="model", code="prompt_mismatch") from foreign
    return chat.ask(assistant=key.assistant, arm=arm, question=wanted.question, history=wanted.history)


def _usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _capture_later(
    asked: chat.Asked, key: ApiKey, wanted: wire.ChatRequest, *, completion: str, started: float, usage: dict[str, int]
) -> None:
    item = chat.turn_item(
        asked,
        completion=completion,
        conversation=wanted.conversation,
        latency_ms=round((time.perf_counter() - started + asked.retrieval.seconds) * 1000, 1),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        user={"id": wanted.user} if wanted.user else {},
    )
    task = asyncio.create_task(_capture(asked, key, item))
    _background.add(task)
    task.add_done_callback(_background.discard)


async def _capture(asked: chat.Asked, key: ApiKey, item: dict[str, Any]) -> None:
    try:
        await _in_thread(lambda: chat.capture(asked, key, item))
    except asyncio.CancelledError:  # the process stops; twice is harmless, ids are idempotent
        spool.keep(asked.assistant, key, item)
        raise
    except Exception:
        logger.exception("A turn of ours was not captured; it is spooled.")
        await asyncio.to_thread(spool.keep, asked.assistant, key, item)
        return
    if await asyncio.to_thread(spool.has_waiting):
        await _in_thread(spool.drain)  # capture is back


async def _in_thread(function: Callable[[], T]) -> T:
    """Database work off the event loop, with its connection given back to the pool at once."""

    def run() -> T:
        try:
            return function()
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=False)()


def _from_api_error(error: ApiError) -> WireError:
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(error.status_code)
    code = "invalid_api_key" if error.status_code == 401 else None
    return WireError(
        error.status_code, str(error.detail), kind=kind or "invalid_request_error", code=code, headers=error.headers
    )


def _from_engine(error: EngineError) -> WireError:
    if isinstance(error, PromptTooLong):
        return WireError(400, str(error), code="context_length_exceeded", param="messages")
    if isinstance(error, EngineBusy):
        wait = {"Retry-After": str(int(error.retry_after) + 1)}
        return WireError(429, str(error), kind="rate_limit_error", headers=wait)
    logger.warning("engine: %s", error)
    return WireError(503, str(error), kind=UNAVAILABLE)

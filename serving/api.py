"""`POST /v1/chat/completions` and `GET /v1/models`: plain async views, because an answer is streamed as it is written.

Database work runs in threads and holds no connection while the engine writes. The turn is captured after the answer has
gone out (`serving.capturing`); an answer that broke off on its way becomes a turn too, tagged as unfinished, since
somebody has read its beginning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from assistants import limits
from assistants.auth import authenticate_key, require_scope
from assistants.errors import ApiError
from assistants.models import ApiKey, Scope
from capture.bodies import read_body
from generation.engines import BadRequest, EngineBusy, EngineError, GenerationResult, PromptTooLong
from generation.streaming import AnswerStream
from serving import answering, chat, measures, wire
from serving.answering import Piece, client
from serving.capturing import LOOPED, UNFINISHED, capture_later, in_thread
from serving.experiments.assignment import Unit
from serving.wire import WireError

__all__ = ["chat_completions", "client", "models"]

logger = logging.getLogger(__name__)
View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]

MAX_BODY = 2_000_000
UNAVAILABLE = "service_unavailable"


def _in_openai_shape(view: View) -> View:
    """Every refusal of the view as OpenAI's clients expect it."""

    @wraps(view)
    async def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return await view(request, *args, **kwargs)
        except WireError as error:
            found = error
        except ApiError as error:
            found = _from_api_error(error)
        except EngineError as error:
            found = from_engine(error)
        except (OperationalError, InterfaceError) as error:
            # One line: a minute without a database is a thousand refused requests, and traces of them bury its cause.
            logger.error("The database does not answer: %s", str(error).partition("\n")[0])
            found = WireError(503, "The service is busy or starting; try again shortly.", kind=UNAVAILABLE)
        measures.ANSWERS.labels("failed" if found.status >= 500 else "refused").inc()
        return found.response()

    return answer


@csrf_exempt
@_in_openai_shape
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    started = time.perf_counter()
    if request.method != "POST":
        raise WireError(405, "Use POST.", headers={"Allow": "POST"})
    key, wanted, asked = await in_thread(lambda: _asked(request))
    answer = _Answer(key, wanted, started)
    return await (answer.streamed(asked) if wanted.stream else answer.whole(asked))


@csrf_exempt
@_in_openai_shape
async def models(request: HttpRequest, name: str = "") -> HttpResponse:
    """All models of the key's assistant, or the one that is named."""
    if request.method != "GET":
        raise WireError(405, "Use GET.", headers={"Allow": "GET"})
    key = await in_thread(lambda: _authenticate(request))
    names = await in_thread(lambda: chat.models_of(key.assistant))
    created = int(key.assistant.created_at.timestamp())
    data = [{"id": each, "object": "model", "created": created, "owned_by": key.assistant.slug} for each in names]
    if not name:
        return JsonResponse({"object": "list", "data": data})
    if name not in names:
        raise WireError(404, "This key has no such model.", param="model", code="model_not_found")
    return JsonResponse(data[names.index(name)])


class _Answer:
    """One request on its way back."""

    def __init__(self, key: ApiKey, wanted: wire.ChatRequest, started: float) -> None:
        self.key, self.wanted, self.started = key, wanted, started

    async def whole(self, asked: chat.Asked) -> JsonResponse:
        asked, result = await answering.whole(asked, max_new_tokens=self.wanted.max_new_tokens, stop=self.wanted.stops)
        answer = chat.read_answer(asked, result.text)
        usage = _usage(result)
        message = {"role": "assistant", "content": answer.marked, "context": chat.message_context(asked, answer)}
        body = wire.completion(asked.id, self.wanted.model, message, _finish(result), usage)
        response = JsonResponse(body)
        retrieval, engine = asked.retrieval.seconds * 1000, result.seconds * 1000
        total = (time.perf_counter() - self.started) * 1000
        response["Server-Timing"] = f"retrieval;dur={retrieval:.1f}, engine;dur={engine:.1f}, total;dur={total:.1f}"
        self._done(asked, result.text, result)
        return response

    async def streamed(self, asked: chat.Asked) -> StreamingHttpResponse:
        asked, first, rest = await answering.streamed(
            asked, max_new_tokens=self.wanted.max_new_tokens, stop=self.wanted.stops
        )
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(
            self._events(asked, first, rest), content_type="text/event-stream", headers=headers
        )

    async def _events(self, asked: chat.Asked, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncIterator[bytes]:
        """The answer as server-sent events: text as it is written, citations behind their sentences."""
        wanted, shown = self.wanted, AnswerStream(asked.prompt)
        with_usage = bool(wanted.stream_options and wanted.stream_options.include_usage)
        written: list[str] = []
        result: GenerationResult | None = None
        ended = False

        def part(delta: dict[str, Any], finish: str | None = None) -> bytes:
            return wire.event(wire.chunk(asked.id, wanted.model, delta, finish, with_usage=with_usage))

        try:
            yield part({"role": "assistant", "content": "", "context": chat.message_context(asked)})
            async for piece in _chained(first, rest):
                if isinstance(piece, GenerationResult):
                    result = piece
                    break
                written.append(piece)
                if text := shown.feed(piece):
                    yield part({"content": text})
            if text := shown.finish():
                yield part({"content": text})
            declined = chat.read_answer(asked, "".join(written)).declined
            yield part({"context": {"declined": declined}}, _finish(result))
            if with_usage:
                yield wire.event({**wire.chunk(asked.id, wanted.model, {}), "choices": [], "usage": _usage(result)})
            # Before the last event: a client that has read it leaves, and takes this generator with it.
            ended = True
            self._done(asked, "".join(written), result)
            yield wire.event("[DONE]")
        except EngineError as error:
            yield wire.event(from_engine(error).body())
        finally:
            if not ended:  # the reader has gone, or the engine broke: what was read was read
                self._done(asked, "".join(written), None)
            await rest.aclose()

    def _done(self, asked: chat.Asked, completion: str, result: GenerationResult | None) -> None:
        """Counts the answer and has its turn captured. ``result`` None: it broke off."""
        seconds = time.perf_counter() - self.started
        outcome = UNFINISHED if result is None else _finish(result)
        if result is not None and chat.read_answer(asked, completion).declined:
            outcome = "declined"
        measures.answered(outcome, seconds=seconds, engine_seconds=result.seconds if result else seconds)
        if asked.dropped:
            measures.DROPPED.inc()
        item = chat.turn_item(
            asked,
            completion=completion,
            conversation=self.wanted.conversation,
            latency_ms=round(seconds * 1000, 1),
            prompt_tokens=result.prompt_tokens if result else None,
            completion_tokens=result.completion_tokens if result else None,
            user={"id": self.wanted.user} if self.wanted.user else {},
            tags=[UNFINISHED] if result is None else [LOOPED] if result.looped else [],
        )
        capture_later(asked, self.key, item)


async def _chained(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def _finish(result: GenerationResult | None) -> str:
    """OpenAI's word: an answer that ran out of tokens or of time was cut short."""
    return "length" if result is not None and result.finish_reason in ("length", "deadline") else "stop"


def _authenticate(request: HttpRequest) -> ApiKey:
    key = authenticate_key(request.headers.get("Authorization"))
    require_scope(key, Scope.CHAT)
    limits.take(key)
    return key


def _body(request: HttpRequest) -> bytes:
    try:
        return read_body(request, MAX_BODY)
    except ApiError as error:
        if error.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        raise WireError(413, f"The body is larger than {MAX_BODY // 1_000_000} MB.") from error


def _asked(request: HttpRequest) -> tuple[ApiKey, wire.ChatRequest, chat.Asked]:
    """All that is asked of the database before the engine: on one thread, with one connection."""
    key = _authenticate(request)
    wanted = wire.read_request(_body(request))
    return key, wanted, _ask(key, wanted)


def _ask(key: ApiKey, wanted: wire.ChatRequest) -> chat.Asked:
    # The name that says no version is looked up while the question is embedded; others may be refused, and come first.
    arm = None if wanted.model == key.assistant.slug else _arm(key, wanted)
    begun = chat.begin(
        assistant=key.assistant,
        question=wanted.question,
        history=wanted.history,
        options=wanted.retrieval.model_dump(exclude_none=True),
    )
    return chat.ask(
        assistant=key.assistant,
        arm=arm or _arm(key, wanted),
        question=wanted.question,
        history=wanted.history,
        begun=begun,
    )


def _arm(key: ApiKey, wanted: wire.ChatRequest) -> chat.Arm:
    try:
        return chat.resolve_model(key.assistant, wanted.model, Unit(wanted.conversation, wanted.user))
    except chat.UnknownModel as unknown:
        raise WireError(404, str(unknown), param="model", code="model_not_found") from unknown
    except chat.ForeignPrompt as foreign:
        raise WireError(409, str(foreign), param="model", code="prompt_mismatch") from foreign


def _usage(result: GenerationResult | None) -> dict[str, int]:
    prompt, written = (result.prompt_tokens, result.completion_tokens) if result else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _from_api_error(error: ApiError) -> WireError:
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(error.status_code)
    code = "invalid_api_key" if error.status_code == 401 else None
    return WireError(
        error.status_code, str(error.detail), kind=kind or "invalid_request_error", code=code, headers=error.headers
    )


def from_engine(error: EngineError) -> WireError:
    """Our engine's words, and OpenAI's status for them. What another server said, and every word that names the socket
    or address behind this one, is for the log: nothing for whoever asks."""
    own = not error.quotes
    if not own or not isinstance(error, PromptTooLong | BadRequest | EngineBusy):
        logger.warning("engine: %s", error)
    if isinstance(error, PromptTooLong):
        said = str(error) if own else "The question does not fit the model, even with less evidence."
        return WireError(400, said, code="context_length_exceeded", param="messages")
    if isinstance(error, BadRequest):
        return WireError(400, str(error) if own else "The model does not take this request.", param="messages")
    if isinstance(error, EngineBusy):
        wait = {"Retry-After": str(int(error.retry_after) + 1)}
        said = str(error) if own else "The model is busy. Try again in a moment."
        return WireError(503, said, kind=UNAVAILABLE, code="engine_busy", headers=wait)
    return WireError(
        503, "The model does not answer just now. Try again in a moment.", kind=UNAVAILABLE, code="engine_unavailable"
    )

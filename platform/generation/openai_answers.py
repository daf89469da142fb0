"""What servers with the OpenAI wire format answer: how long they may take, what a stream says, what an error means."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from generation.engines import BadRequest, EngineBusy, EngineError, EngineUnavailable, FinishReason, PromptTooLong

T = TypeVar("T")
CONNECT_SECONDS = 5.0
DEFAULT_SECONDS = 180.0
MAX_ANSWER_BYTES = 64 * 1024**2
"""Of one answer, unpacked: a thousand vectors are some 20 MB, a completion a few kB."""
NONSENSE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading JSON of another shape than expected raises; the last one where it is nested thousands deep."""
BROKEN = ("error", "abort", "insufficient_system_resource")
"""Reasons to finish that are none (OpenRouter, vLLM and SGLang, DeepSeek): what was written is half an answer."""
TOO_LONG_CODES = ("context_length_exceeded", "exceed_context_size_error")
TOO_LONG_WORDS = (
    "context length", "context_length", "context size", "context window", "maximum model length",
    "`max_new_tokens` must be <=", "`inputs` must have less than", "prompt is too long",
)  # fmt: skip
"""Of vLLM and SGLang, llama.cpp, LM Studio, vLLM again, TGI (two), Anthropic. In small letters."""
MAX_SAID = 300


class Bounds:
    """Of one request as a whole: httpx bounds each read only, and a server that sends a byte now and then, be it of its
    headers, would hold whoever asks without end."""

    def __init__(self, deadline: float | None) -> None:
        seconds = deadline or DEFAULT_SECONDS
        self._end = time.monotonic() + seconds
        self._left = MAX_ANSWER_BYTES
        self.timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)

    async def within(self, step: Awaitable[T]) -> T:
        """One step, never a whole stream: between two of them somebody else's code runs, which must not be cancelled.

        Raises:
            httpx.ReadTimeout: the time of the request is over.
        """
        try:
            async with asyncio.timeout(self._end - time.monotonic()):
                return await step
        except TimeoutError:
            raise httpx.ReadTimeout("the answer does not end") from None

    async def parts(self, answer: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Counted as they come. Raises httpx.ReadTimeout or httpx.DecodingError where it is over."""
        coming = answer.aiter_bytes()
        while (part := await self.within(anext(coming, None))) is not None:
            self._left -= len(part)
            if self._left < 0:
                raise httpx.DecodingError("longer than any answer")
            if time.monotonic() > self._end:
                raise httpx.ReadTimeout("the answer does not end")
            yield part

    async def whole(self, answer: httpx.Response) -> httpx.Response:
        """As if it had come in one piece, without the headers that say how it came."""
        content = b"".join([part async for part in self.parts(answer)])
        how = ("content-encoding", "content-length", "transfer-encoding")
        kept = {name: value for name, value in answer.headers.items() if name not in how}
        return httpx.Response(answer.status_code, headers=kept, content=content)

    @asynccontextmanager
    async def asked(
        self, client: httpx.AsyncClient, method: str, path: str, body: Any
    ) -> AsyncIterator[httpx.Response]:
        """The answer as soon as its headers are there."""
        request = client.build_request(method, path, json=body, timeout=self.timeout)
        answer = await self.within(client.send(request, stream=True))
        try:
            yield answer
        finally:
            await answer.aclose()


class Stream:
    """What the events of one streamed completion have said so far. Each is read with `pieces`."""

    def __init__(self) -> None:
        self.finish: FinishReason | None = None
        self.usage: Any = {}
        self.text = ""
        self._halves = Halves()

    def pieces(self, event: Mapping[str, Any]) -> list[str]:
        """Raises EngineError where the event reports that the server has failed."""
        if event.get("error"):
            raise self._broken(event["error"])
        self.usage = event.get("usage") or self.usage
        found = []
        for choice in event.get("choices") or []:
            found.append(self._halves.joined((choice.get("delta") or {}).get("content") or ""))
            self.finish = finish(choice.get("finish_reason"), self.finish)
        return self._kept(found)

    def last(self) -> list[str]:
        return self._kept([self._halves.left()])

    def _kept(self, pieces: list[str]) -> list[str]:
        self.text += "".join(pieces)
        return [piece for piece in pieces if piece]

    def _broken(self, error: Any) -> EngineError:
        """Before the first word the status may be right there (a prompt that is too long); later nothing helps."""
        if self.text:
            return quoting(EngineUnavailable(f"The server broke the answer off: {said(error)}", "See its log."))
        return reported(error)


class Halves:
    """Puts the halves of surrogate pairs together: some servers write one character in two deltas, half of it in each.
    Half a character without its other half can neither be sent nor stored."""

    def __init__(self) -> None:
        self._held = ""

    def joined(self, text: str) -> str:
        if not isinstance(text, str):
            raise TypeError("no text")
        text, self._held = self._held + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return whole_characters(text)

    def left(self) -> str:
        """Once nothing comes any more."""
        text, self._held = whole_characters(self._held), ""
        return text


def whole_characters(text: str) -> str:
    """Halves that stand side by side as the character that they are, others as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """Until the stream says that it is done, or ends. Bytes are read as they come, not lines: one may never end."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for data in _data(lines):
            if data == b"[DONE]":
                return
            yield _event(data)
    for data in _data([rest]):
        if data != b"[DONE]":
            yield _event(data)


def _data(lines: list[bytes]) -> list[bytes]:
    return [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]


def _event(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no event")
    return found


def finish(reason: Any, before: FinishReason | None = None) -> FinishReason | None:
    """``before``: where it says none. Raises EngineUnavailable where it says that the answer broke off."""
    if reason in BROKEN:
        raise EngineUnavailable("The server broke the answer off.", "See its log.")
    if not reason:
        return before
    return "length" if reason == "length" else "stop"


def count(usage: Any, name: str) -> int:
    """As the server says; 0 where it says none, or nonsense."""
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) and number >= 0 else 0


def failure(status: int, error: Any, retry_after: str = "") -> EngineError:
    """What a server's error means. ``error``: of its body, by `error_of`."""
    words = said(error) or f"status {status}."
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 2.0
        return quoting(EngineBusy(f"The server is busy: {words}", "Try again later.", retry_after=wait))
    if _is_too_long(status, error, words):
        hint = "Offer fewer passages, or ask for a shorter completion."
        return quoting(PromptTooLong(f"The server says: {words}", hint))
    if status < httpx.codes.INTERNAL_SERVER_ERROR:
        return quoting(BadRequest(f"The server refuses the request: {words}"))
    return quoting(EngineUnavailable(f"The server failed with status {status}: {words}", "See its log."))


def reported(error: Any) -> EngineError:
    """As `failure`, of an error that came although the status was good: some send 200 first, then ask the model."""
    code = error.get("code") if isinstance(error, dict) else None  # which may also be a word
    if isinstance(code, int) and httpx.codes.BAD_REQUEST <= code < 600:
        return failure(code, error)
    return failure(httpx.codes.INTERNAL_SERVER_ERROR, error)


def quoting(error: EngineError) -> EngineError:
    error.quotes = True
    return error


def error_of(answer: httpx.Response) -> Any:
    """The error in the body of an answer: what stands under ``error``, all of it, or its text."""
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return answer.text[:MAX_SAID]
    return (body.get("error") or body) if isinstance(body, dict) else body


def said(error: Any) -> str:
    """Its message, on one line, with a full stop, since a hint may follow; empty: it has none."""
    found = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
    try:
        words = " ".join(whole_characters(str(found or ""))[:MAX_SAID].split())
    except RecursionError:
        return ""
    return f"{words.rstrip('.')}." if words else ""


def _is_too_long(status: int, error: Any, words: str) -> bool:
    if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return True
    if isinstance(error, dict) and any(error.get(name) in TOO_LONG_CODES for name in ("code", "type")):
        return True
    return status < httpx.codes.INTERNAL_SERVER_ERROR and any(each in words.lower() for each in TOO_LONG_WORDS)

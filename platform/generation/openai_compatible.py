"""Any server with the OpenAI wire format as an engine, for example vLLM with a large base model on a GPU.

Adapters are loaded through vLLM's run-time endpoints (``/v1/load_lora_adapter``, server started with
``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``) and chosen by model name. The folder must lie where the server can read it.
Such a server checks little and guards only part of its endpoints: bind it to a private address.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from generation.adapters import check_adapter, check_name
from generation.engines import (
    AdapterRefused,
    BadRequest,
    EngineBusy,
    EngineError,
    EngineHealth,
    EngineUnavailable,
    FinishReason,
    GenerationRequest,
    GenerationResult,
    LoadedAdapter,
    PromptTooLong,
    UnknownAdapter,
)
from generation.prompts import CHAT_TEMPLATE_OPTIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARALLEL = 16
"""Requests in flight during bulk work: such servers batch by themselves what comes at once."""
CONNECT_SECONDS = 5.0
DEFAULT_SECONDS = 180.0
LIST_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024**2
"""Of one answer, unpacked: a thousand vectors are some 20 MB, a completion a few kB."""


class OpenAIEngine:
    """An `Engine` over the OpenAI wire format."""

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        model: str = "",
        *,
        embedding_model: str = "",
        settings: str = "RATCHET_OPENAI",
    ) -> None:
        """``base_url`` ends with the version, as in ``http://host:8000/v1``; ``model``: the base model's name there.
        ``settings``: how the names of the settings begin that say so, for hints."""
        self._hint = f"Check {settings}_BASE_URL and that the server runs."
        self._key_hint = f"Check {settings}_API_KEY."
        self.base_url = base_url.rstrip("/")
        self.model = model
        self._embedding_model = embedding_model or model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(**self._settings())

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        with ThreadPoolExecutor(min(PARALLEL, max(1, len(requests)))) as pool:
            return list(pool.map(self._generate, requests))

    async def agenerate(self, request: GenerationRequest) -> GenerationResult:
        began = time.monotonic()
        body, bounds, content = self._body(request), _Bounds(request.deadline), bytearray()
        async with httpx.AsyncClient(**self._settings()) as client:
            try:
                async with client.stream(
                    "POST", "/chat/completions", json=body, timeout=_timeout(request.deadline)
                ) as answer:
                    async for part in answer.aiter_bytes():
                        bounds.count(len(part))
                        content += part
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
        return self._result(self._checked(_whole(answer, content), request), time.monotonic() - began)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[str]:
        """Pieces of the completion. Closing the iterator closes the connection, which stops such servers."""
        async with aclosing(self.astream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    yield piece

    async def astream(self, request: GenerationRequest) -> AsyncGenerator[str | GenerationResult, None]:
        """Pieces of the completion as they come, then its result."""
        began = time.monotonic()
        body = {**self._body(request), "stream": True, "stream_options": {"include_usage": True}}
        pieces: list[str] = []
        bounds = _Bounds(request.deadline)
        finish, usage = "stop", dict[str, Any]()
        async with httpx.AsyncClient(**self._settings()) as client:
            try:
                async with client.stream(
                    "POST", "/chat/completions", json=body, timeout=_timeout(request.deadline)
                ) as answer:
                    if not answer.is_success:
                        content = bytearray()
                        async for part in answer.aiter_bytes():
                            bounds.count(len(part))
                            content += part
                        self._checked(_whole(answer, content), request)
                    async for event in _events(answer, bounds):
                        usage = event.get("usage") or usage
                        for choice in event.get("choices") or []:
                            finish = choice.get("finish_reason") or finish
                            if piece := (choice.get("delta") or {}).get("content"):
                                pieces.append(str(piece))
                                yield pieces[-1]
                    if bounds.over:
                        if not pieces:
                            raise httpx.ReadTimeout("nothing was written")
                        finish = "length"  # as our own engine ends an answer that takes too long
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            except _NONSENSE as error:
                raise self._no_completion() from error
        yield GenerationResult(
            text="".join(pieces).strip(),
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            finish_reason=_finish(finish),
            seconds=round(time.monotonic() - began, 6),
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        body = {"model": self._embedding_model, "input": list(texts), "encoding_format": "float"}
        data = self._post("/embeddings", body).json()["data"]
        vectors = np.asarray([item["embedding"] for item in sorted(data, key=lambda item: item["index"])], dtype="f4")
        unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    def adapters(self) -> list[LoadedAdapter]:
        """The models that the server names as children of another one (vLLM does)."""
        return [LoadedAdapter(name=item["id"], digest="") for item in self._models() if item.get("parent")]

    def load_adapter(
        self, name: str, folder: Path, *, base_digest: str | None = None, prompt_digest: str | None = None
    ) -> LoadedAdapter:
        """Checks the folder here, then has the server load it. A loaded name is left alone: names are never reused.

        Raises:
            AdapterRefused: also when the server is reachable from outside, or has another adapter of that name.
        """
        check_name(name)
        self._check_private()
        checked = check_adapter(Path(folder), base_digest=base_digest, prompt_digest=prompt_digest)
        manifest = checked.manifest
        loaded = LoadedAdapter(
            name=name,
            digest=checked.digest,
            base_digest=manifest["base_digest"],
            prompt_digest=manifest["prompt_digest"],
        )
        path = str(Path(folder).resolve())
        if (there := next((item for item in self._models() if item.get("id") == name), None)) is not None:
            if there.get("root") not in (None, path):
                raise AdapterRefused(
                    f"The server at {self.base_url} has another adapter under the name {name}.",
                    "Unload it there: a name means one adapter for ever.",
                    reason="name",
                )
            return loaded
        try:
            self._post("/load_lora_adapter", {"lora_name": name, "lora_path": path})
        except (BadRequest, UnknownAdapter) as error:
            raise AdapterRefused(
                f"The server at {self.base_url} does not load the adapter: {error.sentence}",
                "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and let it read the folder.",
                reason="server",
            ) from error
        return loaded

    def unload_adapter(self, name: str) -> None:
        self._post("/unload_lora_adapter", {"lora_name": name})

    def health(self) -> EngineHealth:
        models = self._models()
        base = next((item for item in models if item.get("id") == self.model), None)
        return EngineHealth(
            ready=base is not None,
            base=self.model,
            base_digest="",
            context=int((base or {}).get("max_model_len") or 0),
            device="server",
            dtype="",
            adapters=tuple(str(item["id"]) for item in models if item.get("parent")),
        )

    def _check_private(self) -> None:
        """Such servers load what they are told by anybody who reaches them, so they must not be reachable from outside.

        Raises:
            AdapterRefused: the server's address is a public one.
        """
        host = httpx.URL(self.base_url).host
        try:
            found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
        except OSError as error:
            raise EngineUnavailable(f"The server at {self.base_url} has no address.", self._hint) from error
        if not all(ip_address(each).is_private for each in found):
            raise AdapterRefused(
                f"The server at {self.base_url} has a public address: adapters are not loaded into it.",
                "Bind it to loopback or to a private network.",
                reason="network",
            )

    def _generate(self, request: GenerationRequest) -> GenerationResult:
        began = time.monotonic()
        answer = self._post("/chat/completions", self._body(request), request=request)
        return self._result(answer, time.monotonic() - began)

    def _models(self) -> list[dict[str, Any]]:
        try:
            found = self._bounded("GET", "/models", None, LIST_SECONDS).json().get("data") or []
            return [item for item in found if isinstance(item, dict) and isinstance(item.get("id"), str)]
        except _NONSENSE as error:
            raise EngineUnavailable("The server's list of models is none.", self._hint) from error

    def _post(self, path: str, body: Mapping[str, Any], request: GenerationRequest | None = None) -> httpx.Response:
        return self._bounded("POST", path, body, request.deadline if request else None, request)

    def _bounded(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float | None,
        request: GenerationRequest | None = None,
    ) -> httpx.Response:  # fmt: skip
        bounds, content = _Bounds(deadline), bytearray()
        try:
            with self._client.stream(method, path, json=body, timeout=_timeout(deadline)) as answer:
                for part in answer.iter_bytes():
                    bounds.count(len(part))
                    content += part
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return self._checked(_whole(answer, content), request)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.adapter or self.model,
            "messages": [dict(message) for message in request.messages],
            "max_tokens": request.max_new_tokens,
            "temperature": 0,
            "chat_template_kwargs": CHAT_TEMPLATE_OPTIONS,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        return body

    def _settings(self) -> dict[str, Any]:
        return {"base_url": self.base_url, "headers": self._headers, "trust_env": False}

    def _unreachable(self, error: Exception) -> EngineError:
        if isinstance(error, httpx.TimeoutException):
            return EngineUnavailable(f"The server at {self.base_url} did not answer in time.", self._hint)
        return EngineUnavailable(f"The server at {self.base_url} does not answer.", self._hint)

    def _no_completion(self) -> EngineUnavailable:
        return EngineUnavailable("The server's answer is no chat completion.", self._hint)

    def _result(self, answer: httpx.Response, seconds: float) -> GenerationResult:
        try:
            body = answer.json()
            choice, usage = body["choices"][0], body.get("usage") or {}
            return GenerationResult(
                text=(choice["message"]["content"] or "").strip(),
                prompt_tokens=_count(usage, "prompt_tokens"),
                completion_tokens=_count(usage, "completion_tokens"),
                finish_reason=_finish(choice.get("finish_reason")),
                seconds=round(seconds, 6),
            )
        except _NONSENSE as error:
            raise self._no_completion() from error

    def _checked(self, answer: httpx.Response, request: GenerationRequest | None = None) -> httpx.Response:
        """The answer when it is good; else the error that it stands for."""
        if answer.is_success:
            return answer
        said = _message(answer)
        status = answer.status_code
        if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
            wait = answer.headers.get("retry-after", "")
            raise EngineBusy(
                f"The server is busy: {said}", "Try again later.", retry_after=float(wait) if wait.isdigit() else 2.0
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise EngineUnavailable("The server refuses the key.", self._key_hint)  # its words may quote the key
        if status == httpx.codes.NOT_FOUND and request is not None and request.adapter:
            raise UnknownAdapter(f"The server knows no adapter {request.adapter!r}.", "Load it, then ask again.")
        if status < httpx.codes.INTERNAL_SERVER_ERROR:
            if "context length" in said or "context_length" in said or status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
                raise PromptTooLong(
                    f"The server says: {said}", "Offer fewer passages, or ask for a shorter completion."
                )
            raise BadRequest(f"The server refuses the request: {said}")
        raise EngineUnavailable(f"The server failed with status {status}: {said}", "See its log.")


def _timeout(deadline: float | None) -> httpx.Timeout:
    return httpx.Timeout(deadline or DEFAULT_SECONDS, connect=CONNECT_SECONDS)


_NONSENSE = (ValueError, LookupError, TypeError, AttributeError)
"""What reading JSON of another shape than expected raises."""


class _Bounds:
    """Of one answer as a whole: httpx bounds each read only, and a server that sends a byte now and then would hold
    whoever asks without end."""

    def __init__(self, deadline: float | None) -> None:
        self._end = time.monotonic() + (deadline or DEFAULT_SECONDS)
        self._left = MAX_ANSWER_BYTES

    def count(self, size: int) -> None:
        """Raises httpx.ReadTimeout or httpx.DecodingError where it is over."""
        self._left -= size
        if self._left < 0:
            raise httpx.DecodingError("longer than any answer")
        if self.over:
            raise httpx.ReadTimeout("the answer does not end")

    @property
    def over(self) -> bool:
        return time.monotonic() > self._end


def _whole(answer: httpx.Response, content: bytes | bytearray) -> httpx.Response:
    """As if it had come in one piece, without the headers that say how it came."""
    how = ("content-encoding", "content-length", "transfer-encoding")
    kept = {name: value for name, value in answer.headers.items() if name not in how}
    return httpx.Response(answer.status_code, headers=kept, content=bytes(content))


async def _events(answer: httpx.Response, bounds: _Bounds) -> AsyncIterator[dict[str, Any]]:
    """Until the stream ends or its time is over. Bytes are counted as they come, not lines: one may never end."""
    rest = b""
    async for part in answer.aiter_bytes():
        if bounds.over:
            return
        bounds.count(len(part))
        *lines, rest = (rest + part).split(b"\n")
        for event in map(_event, lines):
            if event is not None:
                yield event
    if (last := _event(rest)) is not None:
        yield last


def _event(line: bytes) -> dict[str, Any] | None:
    """None: the line holds none."""
    data = line.removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return None
    found: dict[str, Any] = json.loads(data)
    return found


def _count(usage: Any, name: str) -> int:
    """As the server says; 0 where it says none, or nonsense."""
    said = usage.get(name) if isinstance(usage, dict) else None
    return said if isinstance(said, int) and said >= 0 else 0


def _finish(reason: Any) -> FinishReason:
    return "length" if reason == "length" else "stop"


def _message(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        return f"{answer.text[:200] or f'status {answer.status_code}'}."
    error = body.get("error", body) if isinstance(body, dict) else body
    found = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return f"{str(found or answer.status_code)[:300].rstrip('.')}."  # a hint may follow

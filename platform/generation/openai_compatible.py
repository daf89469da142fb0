"""Any server with the OpenAI wire format as an engine, for example vLLM with a large base model on a GPU.

Adapters are loaded through vLLM's run-time endpoints (``/v1/load_lora_adapter``, server started with
``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True``) and chosen by model name. The folder must lie where the server can read it.
Such a server checks little and guards only part of its endpoints: bind it to a private address.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from generation.adapters import check_adapter, check_name
from generation.engines import (
    AdapterRefused,
    BadRequest,
    EngineError,
    EngineHealth,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    LoadedAdapter,
    PromptTooLong,
    UnknownAdapter,
)
from generation.openai_answers import (
    NONSENSE,
    Bounds,
    Stream,
    count,
    error_of,
    events,
    failure,
    finish,
    reported,
    whole_characters,
)
from generation.prompts import CHAT_TEMPLATE_OPTIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARALLEL = 16
"""Requests in flight during bulk work: such servers batch by themselves what comes at once."""
LIST_SECONDS = 10.0
T = TypeVar("T")


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
        self._tls = httpx.create_ssl_context(trust_env=False)  # once: reading the certificates takes a while

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        return _run(self._all(requests))

    async def agenerate(self, request: GenerationRequest) -> GenerationResult:
        async with self._client() as client:
            return await self._one(client, request)

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
        said, bounds = Stream(), Bounds(request.deadline)
        async with self._client() as client:
            try:
                async with bounds.asked(client, "POST", "/chat/completions", body) as answer:
                    if not answer.is_success:
                        self._checked(await bounds.whole(answer), request)
                    async for event in events(bounds.parts(answer)):
                        for piece in said.pieces(event):
                            yield piece
            except httpx.ReadTimeout as error:
                if not said.text and said.finish is None:
                    raise self._unreachable(error) from error
                said.finish = said.finish or "length"  # as our own engine ends an answer that takes too long
            except httpx.HTTPError as error:
                if said.finish is None:  # else nothing but the count of tokens is missing
                    raise self._unreachable(error) from error
            except NONSENSE as error:
                raise self._no_completion() from error
        for piece in said.last():
            yield piece
        if said.finish is None:
            raise EngineUnavailable("The server's answer broke off, or is no stream of a chat completion.", self._hint)
        yield GenerationResult(
            text=said.text.strip(),
            prompt_tokens=count(said.usage, "prompt_tokens"),
            completion_tokens=count(said.usage, "completion_tokens"),
            finish_reason=said.finish,
            seconds=round(time.monotonic() - began, 6),
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        body = {"model": self._embedding_model, "input": list(texts), "encoding_format": "float"}
        answer = self._post("/embeddings", body)
        try:
            data = sorted(answer.json()["data"], key=lambda item: item["index"])
            vectors = np.asarray([item["embedding"] for item in data], dtype="f4")
        except NONSENSE as error:
            raise EngineUnavailable("The server's answer holds no vectors.", self._hint) from error
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
                raise _refused(
                    "name",
                    f"The server at {self.base_url} has another adapter under the name {name}.",
                    "Unload it there: a name means one adapter for ever.",
                )
            return loaded
        try:
            self._post("/load_lora_adapter", {"lora_name": name, "lora_path": path})
        except (BadRequest, UnknownAdapter) as error:
            raise _refused(
                "server",
                f"The server at {self.base_url} does not load the adapter: {error.sentence}",
                "Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and let it read the folder.",
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
            raise _refused(
                "network",
                f"The server at {self.base_url} has a public address: adapters are not loaded into it.",
                "Bind it to loopback or to a private network.",
            )

    async def _all(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """The first one that fails ends the others. One that is too long says which it is: whoever asks shortens it."""
        free = asyncio.Semaphore(PARALLEL)

        async def one(place: int, request: GenerationRequest) -> GenerationResult:
            async with free:
                try:
                    return await self._one(client, request)
                except PromptTooLong as error:
                    error.index = place
                    raise

        async with self._client() as client:
            asked = [asyncio.ensure_future(one(place, request)) for place, request in enumerate(requests)]
            try:
                return list(await asyncio.gather(*asked))
            finally:
                for each in asked:
                    each.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    async def _one(self, client: httpx.AsyncClient, request: GenerationRequest) -> GenerationResult:
        began = time.monotonic()
        answer = await self._whole(client, "POST", "/chat/completions", self._body(request), request.deadline)
        return self._result(self._checked(answer, request), time.monotonic() - began)

    def _models(self) -> list[dict[str, Any]]:
        try:
            found = self._call("GET", "/models", None, LIST_SECONDS).json().get("data") or []
            return [item for item in found if isinstance(item, dict) and isinstance(item.get("id"), str)]
        except NONSENSE as error:
            raise EngineUnavailable("The server's list of models is none.", self._hint) from error

    def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return self._call("POST", path, body, None)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, deadline: float | None) -> httpx.Response:
        async def call() -> httpx.Response:
            async with self._client() as client:
                return await self._whole(client, method, path, body, deadline)

        return self._checked(_run(call()))

    async def _whole(
        self, client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None, deadline: float | None
    ) -> httpx.Response:
        bounds = Bounds(deadline)
        try:
            async with bounds.asked(client, method, path, body) as answer:
                return await bounds.whole(answer)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

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

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.base_url, headers=self._headers, trust_env=False, verify=self._tls)

    def _unreachable(self, error: Exception) -> EngineError:
        if isinstance(error, httpx.TimeoutException):
            return EngineUnavailable(f"The server at {self.base_url} did not answer in time.", self._hint)
        return EngineUnavailable(f"The server at {self.base_url} does not answer.", self._hint)

    def _no_completion(self) -> EngineUnavailable:
        return EngineUnavailable("The server's answer is no chat completion.", self._hint)

    def _result(self, answer: httpx.Response, seconds: float) -> GenerationResult:
        try:
            body = answer.json()
            if body.get("error") and not body.get("choices"):
                raise reported(body["error"])
            choice, usage = body["choices"][0], body.get("usage") or {}
            return GenerationResult(
                text=whole_characters(choice["message"]["content"] or "").strip(),
                prompt_tokens=count(usage, "prompt_tokens"),
                completion_tokens=count(usage, "completion_tokens"),
                finish_reason=finish(choice.get("finish_reason")) or "stop",
                seconds=round(seconds, 6),
            )
        except NONSENSE as error:
            raise self._no_completion() from error

    def _checked(self, answer: httpx.Response, request: GenerationRequest | None = None) -> httpx.Response:
        """The answer when it is good; else the error that it stands for."""
        if answer.is_success:
            return answer
        status = answer.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise EngineUnavailable("The server refuses the key.", self._key_hint)  # its words may quote the key
        if status == httpx.codes.NOT_FOUND and request is not None and request.adapter:
            raise UnknownAdapter(f"The server knows no adapter {request.adapter!r}.", "Load it, then ask again.")
        raise failure(status, error_of(answer), answer.headers.get("retry-after", ""))


def _refused(reason: str, sentence: str, hint: str) -> AdapterRefused:
    refused = AdapterRefused(sentence, hint, reason=reason)
    refused.quotes = True  # the address is nothing for whoever asks
    return refused


def _run(work: Coroutine[Any, Any, T]) -> T:
    """For those who wait. Only this way is a request bounded as a whole: a blocking read waits for the next byte."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as elsewhere:  # whoever calls has a loop of its own
        return elsewhere.submit(asyncio.run, work).result()

"""Against a small server with the OpenAI wire format (and vLLM's adapter endpoints) on a real socket.

The server is a model of the real ones' wire format, with our tiny engine behind it: vLLM itself needs a GPU.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from generation import openai_answers
from generation.engines import (
    AdapterRefused,
    BadRequest,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    PromptTooLong,
    UnknownAdapter,
)
from generation.local import TransformersEngine
from generation.openai_compatible import OpenAIEngine

MODEL = "tiny/base"


def ask(content: str = "Question: fee?", adapter: str | None = None) -> GenerationRequest:
    return GenerationRequest(messages=[{"role": "user", "content": content}], adapter=adapter, max_new_tokens=12)


class Server:
    """What the answers look like on the wire, and what was asked."""

    def __init__(self, models: Path) -> None:
        self.engine = TransformersEngine(models / "base", cut_loops=False)
        self.bodies: list[dict] = []
        self.paths: dict[str, str] = {}
        self.fail: Response | None = None

    def app(self) -> Starlette:
        post = ["POST"]
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=post),
                Route("/v1/embeddings", self.embeddings, methods=post),
                Route("/v1/models", self.models),
                Route("/v1/load_lora_adapter", self.load, methods=post),
                Route("/v1/unload_lora_adapter", self.unload, methods=post),
            ]
        )

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if self.fail is not None:
            return self.fail
        if body["messages"][-1]["content"] == "LONG":
            return JSONResponse({"error": {"message": "maximum context length is 1024 tokens"}}, status_code=400)
        wanted = GenerationRequest(
            messages=body["messages"],
            adapter=None if body["model"] == MODEL else body["model"],
            max_new_tokens=body["max_tokens"],
            stop=tuple(body.get("stop", ())),
        )
        try:
            result = await asyncio.to_thread(self.engine.generate, [wanted])
        except UnknownAdapter:
            return JSONResponse({"error": {"message": "The model does not exist.", "code": 404}}, status_code=404)
        usage = {"prompt_tokens": result[0].prompt_tokens, "completion_tokens": result[0].completion_tokens}
        if body.get("stream"):
            return StreamingResponse(self._events(wanted, usage), media_type="text/event-stream")
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": result[0].text},
            "finish_reason": result[0].finish_reason,
        }
        return JSONResponse({"object": "chat.completion", "choices": [choice], "usage": usage})

    async def _events(self, wanted: GenerationRequest, usage: dict) -> AsyncIterator[str]:
        yield 'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
        async for piece in self.engine.stream(wanted):
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': piece}}]})}\n\n"
        yield 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n'
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

    async def embeddings(self, request: Request) -> Response:
        if self.fail is not None:
            return self.fail
        texts = (await request.json())["input"]
        data = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(texts)]
        return JSONResponse({"data": data[::-1]})

    async def models(self, request: Request) -> Response:
        if self.fail is not None and self.fail.status_code == 200:
            return self.fail
        data = [{"id": MODEL, "max_model_len": 1024}]
        data += [
            {"id": adapter.name, "parent": MODEL, "root": self.paths[adapter.name]}
            for adapter in self.engine.adapters()
        ]
        return JSONResponse({"data": data})

    async def load(self, request: Request) -> Response:
        if self.fail is not None:
            return self.fail
        body = await request.json()
        self.engine.load_adapter(body["lora_name"], Path(body["lora_path"]))
        self.paths[body["lora_name"]] = body["lora_path"]
        return Response("Success")

    async def unload(self, request: Request) -> Response:
        self.engine.unload_adapter((await request.json())["lora_name"])
        return Response("Success")


@pytest.fixture(scope="module")
def running(models: Path) -> Iterator[tuple[Server, str]]:
    server = Server(models)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    process = uvicorn.Server(uvicorn.Config(server.app(), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=process.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    end = time.monotonic() + 10
    while not process.started and time.monotonic() < end:
        time.sleep(0.01)
    yield server, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    process.should_exit = True
    thread.join(10)


@pytest.fixture
def server(running: tuple[Server, str]) -> Iterator[Server]:
    server = running[0]
    server.bodies.clear()
    yield server
    server.fail = None


@pytest.fixture
def engine(running: tuple[Server, str], server: Server) -> OpenAIEngine:
    return OpenAIEngine(running[1], api_key="key", model=MODEL)


def test_completions(engine: OpenAIEngine, server: Server, shared_engine: TransformersEngine) -> None:
    requests = [ask(f"Question: {n}?") for n in range(5)]
    results = engine.generate(requests)
    assert [r.text for r in results] == [r.text for r in shared_engine.generate(requests)]
    assert results[0].prompt_tokens > 0
    assert results[0].finish_reason == "length"
    assert server.bodies[0]["temperature"] == 0
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert asyncio.run(engine.agenerate(requests[0])).text == results[0].text


def test_streams(engine: OpenAIEngine) -> None:
    async def watch() -> tuple[list[str], GenerationResult]:
        pieces: list[str] = []
        async for piece in engine.astream(ask()):
            if isinstance(piece, GenerationResult):
                return pieces, piece
            pieces.append(piece)
        raise AssertionError("no result")

    async def texts() -> str:
        return "".join([piece async for piece in engine.stream(ask())])

    pieces, result = asyncio.run(watch())
    assert len(pieces) > 2
    assert "".join(pieces).strip() == result.text == engine.generate([ask()])[0].text
    assert (result.completion_tokens, result.finish_reason) == (12, "length")
    assert asyncio.run(texts()).strip() == result.text


def test_adapters_come_and_go(engine: OpenAIEngine, models: Path) -> None:
    with pytest.raises(UnknownAdapter):
        engine.generate([ask(adapter="one")])
    loaded = engine.load_adapter("one", models / "one", prompt_digest="0123456789abcdef")
    assert engine.load_adapter("one", models / "one") == loaded
    assert [adapter.name for adapter in engine.adapters()] == ["one"]
    assert engine.generate([ask(adapter="one")])[0].text != engine.generate([ask()])[0].text
    health = engine.health()
    assert (health.ready, health.context, health.adapters) == (True, 1024, ("one",))
    engine.unload_adapter("one")
    assert engine.adapters() == []


def test_an_adapter_is_checked_here_before_the_server_sees_it(
    engine: OpenAIEngine, server: Server, models: Path
) -> None:
    with pytest.raises(AdapterRefused) as refused:
        engine.load_adapter("one", models / "one", prompt_digest="f" * 16)
    assert refused.value.reason == "prompt"
    server.fail = JSONResponse({"message": "LoRA is not enabled"}, status_code=404)
    with pytest.raises(AdapterRefused, match="LoRA is not enabled") as refused:
        engine.load_adapter("one", models / "one")
    assert "--enable-lora" in refused.value.hint


def test_embeddings_are_in_order_and_of_length_one(engine: OpenAIEngine) -> None:
    vectors = engine.embed(["a", "bbbb"])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[1, 0] > vectors[0, 0]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, {"error": {"message": "slow down"}}, EngineBusy),
        (503, {"detail": "loading"}, EngineBusy),
        (401, {"error": "bad key"}, EngineUnavailable),
        (400, {"error": {"message": "This model's maximum context length is 1024 tokens."}}, PromptTooLong),
        (400, {"object": "error", "message": "bad stop"}, BadRequest),
        (500, {}, EngineUnavailable),
        (200, {"choices": []}, EngineUnavailable),
        (200, [], EngineUnavailable),
    ],
)
def test_errors(engine: OpenAIEngine, server: Server, status: int, body: object, expected: type[EngineError]) -> None:
    server.fail = JSONResponse(body, status_code=status, headers={"Retry-After": "7"} if status == 429 else None)
    with pytest.raises(expected) as failed:
        engine.generate([ask()])
    if status == 429:
        assert isinstance(failed.value, EngineBusy)
        assert failed.value.retry_after == 7
    if status != 200:

        async def stream() -> None:
            async for _ in engine.stream(ask()):
                pass

        with pytest.raises(expected):
            asyncio.run(stream())


async def streamed(engine: OpenAIEngine, request: GenerationRequest) -> list[str | GenerationResult]:
    return [piece async for piece in engine.astream(request)]


@pytest.mark.parametrize("status", [200, 500])
def test_a_server_that_sends_a_byte_now_and_then_holds_nobody(
    engine: OpenAIEngine, server: Server, status: int
) -> None:
    """Each read comes in time; only the whole does not."""

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" \n"
            await asyncio.sleep(0.05)

    request = replace(ask(), deadline=0.3)
    for call in (
        lambda: engine.generate([request]),
        lambda: asyncio.run(engine.agenerate(request)),
        *([lambda: asyncio.run(streamed(engine, request))] if status == 200 else []),
    ):
        server.fail = StreamingResponse(drip(), status_code=status)
        began = time.monotonic()
        with pytest.raises(EngineUnavailable, match="did not answer in time"):
            call()
        assert time.monotonic() - began < 20


def test_a_stream_that_takes_too_long_ends_where_it_is(engine: OpenAIEngine, server: Server) -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            yield b'data: {"choices": [{"delta": {"content": "fee "}}]}\n\n'
            await asyncio.sleep(0.05)

    server.fail = StreamingResponse(slow(), media_type="text/event-stream")
    *pieces, result = asyncio.run(streamed(engine, replace(ask(), deadline=0.5)))
    assert set(pieces) == {"fee "}
    assert isinstance(result, GenerationResult)
    assert (result.finish_reason, result.text) == ("length", "".join(map(str, pieces)).strip())


def test_an_answer_without_an_end_is_not_kept(
    engine: OpenAIEngine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_answers, "MAX_ANSWER_BYTES", 5000)
    server.fail = Response(b" " * 20_000)
    with pytest.raises(EngineUnavailable):
        engine.generate([ask()])
    server.fail = Response((b": waits" + b" " * 100 + b"\n") * 200)
    with pytest.raises(EngineUnavailable):
        asyncio.run(streamed(engine, ask()))


@pytest.mark.parametrize(
    "said", ["[]", "7", "null", '{"choices": 5}', '{"choices": [null]}', '{"choices": [{"delta": 5}]}', "{"]
)
def test_nonsense_in_a_stream_is_called_that(engine: OpenAIEngine, server: Server, said: str) -> None:
    server.fail = Response(f"data: {said}\n\n", media_type="text/event-stream")
    with pytest.raises(EngineUnavailable, match="no chat completion"):
        asyncio.run(streamed(engine, ask()))


def test_one_that_is_too_long_is_named_by_its_place(engine: OpenAIEngine, server: Server) -> None:
    """Whoever asks for a batch shortens that one, and leaves the others as they are."""
    long = [ask(f"Question: {n}?") for n in range(3)] + [ask("LONG")]
    with pytest.raises(PromptTooLong) as failed:
        engine.generate(long)
    assert failed.value.index == 3
    with pytest.raises(PromptTooLong) as failed:
        engine.generate([ask("LONG")])
    assert failed.value.index == 0


def test_inside_a_loop_of_somebody_else_it_waits_all_the_same(engine: OpenAIEngine) -> None:
    async def within() -> list[GenerationResult]:
        return engine.generate([ask()])

    assert asyncio.run(within())[0].text == engine.generate([ask()])[0].text


def event(data: object) -> str:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def delta(text: str, reason: str | None = None) -> str:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]})


FAILED = event({"error": {"message": "EngineCore died", "code": 500}})
DONE = event("[DONE]")


async def broken(engine: OpenAIEngine) -> tuple[list[str | GenerationResult], EngineError | None]:
    """What came, and what it ended with."""
    found: list[str | GenerationResult] = []
    try:
        async for piece in engine.astream(ask()):
            found.append(piece)
    except EngineError as error:
        return found, error
    return found, None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (delta("The fee") + FAILED + DONE, "The fee"),
        (delta("The fee") + event({"error": "died"}) + DONE, "The fee"),
        (delta("The fee", "abort") + DONE, ""),
        (delta("The fee"), "The fee"),
        (delta("The fee") + DONE, "The fee"),
        (FAILED + DONE, ""),
        (event("null") + DONE, ""),
        (DONE, ""),
        ("", ""),
        ('{"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}', ""),
    ],
)
def test_a_stream_that_breaks_off_is_no_answer(engine: OpenAIEngine, server: Server, body: str, text: str) -> None:
    server.fail = Response(body, media_type="text/event-stream")
    found, error = asyncio.run(broken(engine))
    assert ("".join(map(str, found)), type(error)) == (text, EngineUnavailable)


def test_no_content_is_no_answer(engine: OpenAIEngine, server: Server) -> None:
    server.fail = Response(status_code=204)
    assert type(asyncio.run(broken(engine))[1]) is EngineUnavailable
    with pytest.raises(EngineUnavailable):
        engine.generate([ask()])


def test_an_error_before_the_first_word_is_what_its_status_says(engine: OpenAIEngine, server: Server) -> None:
    said = {"message": "maximum context length is 1024 tokens", "code": 400}
    server.fail = Response(event({"error": said}) + DONE, media_type="text/event-stream")
    assert type(asyncio.run(broken(engine))[1]) is PromptTooLong
    server.fail = JSONResponse({"error": {"message": "slow down", "code": 429}})  # with status 200
    with pytest.raises(EngineBusy):
        engine.generate([ask()])


def test_a_stream_ends_where_it_says_so(engine: OpenAIEngine, server: Server) -> None:
    async def open_end() -> AsyncIterator[str]:
        yield delta("The fee", "stop") + DONE + delta(" never")
        await asyncio.sleep(5)

    server.fail = StreamingResponse(open_end(), media_type="text/event-stream")
    began = time.monotonic()
    *pieces, result = asyncio.run(streamed(engine, ask()))
    assert time.monotonic() - began < 4
    assert isinstance(result, GenerationResult)
    assert (pieces, result.text, result.finish_reason) == (["The fee"], "The fee", "stop")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("Hello \ud83d", "\ude00 there"), "Hello 😀 there"),
        (("Hello \ud83d", "there"), "Hello \ufffdthere"),
        (("Hello \ude00", " there"), "Hello \ufffd there"),
        (("Hello", " \ud83d"), "Hello \ufffd"),
        (("\ud83d", "", "\ude00"), "😀"),
    ],
)
def test_halves_of_a_character_find_each_other(
    engine: OpenAIEngine, server: Server, parts: tuple[str, ...], text: str
) -> None:
    body = "".join(map(delta, parts)) + delta("", "stop") + DONE
    server.fail = Response(body, media_type="text/event-stream")
    *pieces, result = asyncio.run(streamed(engine, ask()))
    assert isinstance(result, GenerationResult)
    assert "".join(map(str, pieces)) == result.text == text
    content = json.dumps({"choices": [{"message": {"content": "".join(parts)}}]})
    server.fail = Response(content, media_type="application/json")
    assert engine.generate([ask()])[0].text == text


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Too many.", "code": "context_length_exceeded", "type": "invalid_request_error"}}),
        (400, {"error": {"code": 400, "message": "It does not fit.", "type": "exceed_context_size_error"}}),
        (500, {"error": {"code": 500, "message": "It does not fit.", "type": "exceed_context_size_error"}}),
        (400, {"error": {"message": "the request exceeds the available context size, try increasing it"}}),
        (400, {"error": {"message": "The decoder prompt (length 20) is longer than the maximum model length of 8."}}),
        (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4090"}),
        (422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 5000"}),
        (413, {}),
    ],
)
def test_every_server_says_in_its_own_words_that_a_prompt_is_too_long(
    engine: OpenAIEngine, server: Server, status: int, body: object
) -> None:
    server.fail = JSONResponse(body, status_code=status)
    with pytest.raises(PromptTooLong):
        engine.generate([ask()])
    with pytest.raises(PromptTooLong):
        asyncio.run(streamed(engine, ask()))


@pytest.mark.parametrize("status", [200, 400, 500])
def test_json_that_is_nested_without_end_is_nonsense(engine: OpenAIEngine, server: Server, status: int) -> None:
    deep = '{"error": ' + "[" * 100_000
    for body in (deep, f"data: {deep}\n\n"):
        server.fail = Response(body, status_code=status)
        expected = BadRequest if status == 400 else EngineUnavailable
        for call in (
            lambda: engine.generate([ask()]),
            lambda: asyncio.run(engine.agenerate(ask())),
            lambda: asyncio.run(streamed(engine, ask())),
            *([engine.health, lambda: engine.embed(["a"])] if status == 200 else []),
        ):
            with pytest.raises(expected):
                call()


def test_a_server_that_drips_its_headers_holds_nobody(engine: OpenAIEngine) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # the test is over
                return
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                for n in range(400):
                    connection.sendall(f"X-{n}: y\r\n".encode())
                    time.sleep(0.05)

    threading.Thread(target=drip, daemon=True).start()
    slow = OpenAIEngine(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", model=MODEL)
    request = replace(ask(), deadline=0.3)
    with listening:
        for call in (
            lambda: slow.generate([request]),
            lambda: asyncio.run(slow.agenerate(request)),
            lambda: asyncio.run(streamed(slow, request)),
        ):
            began = time.monotonic()
            with pytest.raises(EngineUnavailable, match="did not answer in time"):
                call()
            assert time.monotonic() - began < 10


def test_a_refused_key_is_not_repeated_and_the_right_setting_is_named(running: tuple[Server, str]) -> None:
    server, url = running
    server.fail = JSONResponse({"error": {"message": "bad key sk-secret"}}, status_code=401)
    with pytest.raises(EngineUnavailable) as failed:
        OpenAIEngine(url, "sk-secret", MODEL, settings="RATCHET_TEACHER").generate([ask()])
    assert str(failed.value) == "The server refuses the key. Check RATCHET_TEACHER_API_KEY."
    server.fail = None


def test_nobody_there() -> None:
    absent = OpenAIEngine("http://127.0.0.1:9/v1", model=MODEL)
    for call in (absent.health, lambda: absent.generate([ask()]), lambda: absent.embed(["a"])):
        with pytest.raises(EngineUnavailable, match="does not answer"):
            call()


def test_a_name_means_one_adapter_for_ever(engine: OpenAIEngine, models: Path) -> None:
    engine.load_adapter("one", models / "one")
    engine.load_adapter("one", models / "one")
    with pytest.raises(AdapterRefused) as taken:
        engine.load_adapter("one", models / "two")
    assert taken.value.reason == "name"
    engine.unload_adapter("one")


def test_adapters_go_to_private_addresses_only(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = {"vllm": "10.1.2.3", "engine.example": "93.184.216.34", "both": "10.1.2.3"}

    def addresses(host: str, *_: object) -> list[tuple]:
        also = [(0, 0, 0, "", ("8.8.8.8", 0))] if host == "both" else []
        return [(0, 0, 0, "", (resolved.get(host, host), 0)), *also]

    monkeypatch.setattr("generation.openai_compatible.socket.getaddrinfo", addresses)
    for host in ("93.184.216.34", "engine.example", "both", "[2606:4700::1111]"):
        with pytest.raises(AdapterRefused) as refused:
            OpenAIEngine(f"http://{host}:8000/v1", model=MODEL).load_adapter("one", models / "one")
        assert refused.value.reason == "network", host
    for host in ("127.0.0.1", "vllm", "[::1]", "192.168.7.7"):
        OpenAIEngine(f"http://{host}:8000/v1", model=MODEL)._check_private()

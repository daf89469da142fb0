"""Another server with the OpenAI wire format writes the answers: what its faults look like to whoever asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from generation.engines import BadRequest, EngineBusy, EngineError, PromptTooLong
from serving import chat
from serving.api import from_engine
from tests import servers
from tests.factories import make_adapter
from tests.serving.conftest import QUESTION, Shop, turn_of

SECRET = "Incorrect request for model at http://10.0.0.5:8000 with key sk-secret"


class Foreign:
    """Answers every completion with ``answer``."""

    def __init__(self) -> None:
        self.answer: Response = whole("It costs £35.")

    async def chat(self, request: Request) -> Response:
        return self.answer

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": []})

    async def load(self, request: Request) -> Response:
        return JSONResponse({"message": "LoRA is not enabled"}, status_code=404)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
            ]
        )


def whole(text: str) -> Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})


def stream(*events: Any) -> Response:
    lines = [f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in events]
    return Response("".join(lines), media_type="text/event-stream")


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


@pytest.fixture
def foreign(shop: Shop, settings: Any) -> Iterator[Foreign]:
    server = Foreign()
    with servers.serving(server.app()) as url:
        settings.RATCHET_OPENAI_BASE_URL, settings.RATCHET_OPENAI_API_KEY = f"{url}/v1", ""
        settings.RATCHET_OPENAI_MODEL = "meta/llama"
        yield server


def read(shop: Shop, **more: Any) -> list[Any]:
    """The events of a streamed answer."""
    body = {"model": shop.assistant.slug, "messages": [{"role": "user", "content": QUESTION}], "stream": True, **more}
    answer = shop.post(body)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_an_engine_that_dies_in_the_middle_leaves_an_unfinished_turn(shop: Shop, foreign: Foreign) -> None:
    died = {"error": {"message": "EngineCore died", "code": 500}}
    foreign.answer = stream(delta("It costs"), died, "[DONE]")
    *parts, last = read(shop)
    assert last["error"]["code"] == "engine_unavailable"
    assert not any(choice["finish_reason"] for part in parts for choice in part["choices"])
    turn = turn_of(parts[0]["id"])
    assert "unfinished" in turn.tags
    assert turn.completion == "It costs"


def test_a_character_that_comes_in_halves_breaks_no_stream(shop: Shop, foreign: Foreign) -> None:
    foreign.answer = stream(delta("Hello \ud83d"), delta("\ude00 there \ude00", "stop"), "[DONE]")
    *parts, last = read(shop)
    assert last == "[DONE]"
    said = "".join(choice["delta"].get("content") or "" for part in parts for choice in part["choices"])
    assert said.strip() == "Hello 😀 there \ufffd"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, None), (413, "context_length_exceeded"), (429, "engine_busy"), (500, "engine_unavailable")],
)
def test_what_another_server_says_is_not_repeated(
    shop: Shop, foreign: Foreign, caplog: pytest.LogCaptureFixture, status: int, code: str | None
) -> None:
    foreign.answer = JSONResponse({"error": {"message": SECRET}}, status_code=status)
    for streamed in (False, True):
        with pytest.raises(openai.APIStatusError) as refused:
            shop.ask(stream=streamed)
        assert refused.value.code == code
        assert "sk-secret" not in refused.value.response.text
        assert "10.0.0.5" not in refused.value.response.text
        assert refused.value.response.json()["error"]["message"].endswith(".")
    assert "sk-secret" in caplog.text  # whoever runs this can read why


def test_an_adapter_that_another_server_refuses_names_no_address(
    shop: Shop, foreign: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for by number, its refusal is told to whoever asks."""
    make_adapter(shop.assistant, number=1, seed=1)
    foreign.answer = JSONResponse({"error": {"message": "no such model"}}, status_code=404)
    with pytest.raises(openai.ConflictError) as refused:
        shop.ask(f"{shop.assistant.slug}:1")
    said = refused.value.response.json()["error"]
    assert (said["code"], said["message"]) == (
        "adapter_refused",
        "This adapter cannot be served now; the log says why.",
    )
    assert "LoRA is not enabled" in caplog.text


@pytest.mark.parametrize("kind", [BadRequest, PromptTooLong, EngineBusy])
def test_what_our_own_engine_says_is_passed_on(kind: type[EngineError]) -> None:
    assert from_engine(kind("The prompt has 1200 tokens.")).message == "The prompt has 1200 tokens."


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("@cf/meta/llama-3.1-8b-instruct", "_cf/meta/llama-3.1-8b-instruct"),
        ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet_20240620"),
        ("accounts/x/models/y#deployment", "accounts/x/models/y_deployment"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("通义/千问", "通义/千问"),
        ("m²@1", "m__1"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_turn_is_kept_whatever_its_model_is_called(settings: Any, name: str, kept: str) -> None:
    settings.RATCHET_OPENAI_BASE_URL, settings.RATCHET_OPENAI_MODEL = "http://127.0.0.1:9/v1", name
    assert chat.base_name() == kept
    assert chat.captured_name(kept, chat.MAX_NAME) == kept


def test_the_turn_of_a_model_with_an_at_sign(shop: Shop, foreign: Foreign, settings: Any) -> None:
    settings.RATCHET_OPENAI_MODEL = "@cf/meta/llama-3.1-8b-instruct"
    assert turn_of(shop.ask().id).model == "_cf/meta/llama-3.1-8b-instruct"

"""Many clients at the same moment: everybody gets an answer, or is told when to come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from django.conf import settings as django_settings
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import SecretStr

from capture.models import Quarantine
from generation.local import TransformersEngine
from generation.server import Service
from tests import servers
from tests.serving.conftest import QUESTION, Shop, _captures_running, until
from tests.tiny_model import shared_base

CROWD = 32


async def crowd(shop: Shop, users: int, **more: Any) -> list[Any]:
    """(id, finish reason) of each answer, every other one streamed, or what was raised instead."""
    async with DefaultAsyncHttpxClient(trust_env=False, timeout=60) as transport:
        client = AsyncOpenAI(
            base_url=f"{shop.url}/v1", api_key=shop.secret, http_client=transport, **{"max_retries": 0, **more}
        )

        async def one(number: int) -> tuple[str, str | None]:
            asked: dict[str, Any] = {
                "model": shop.assistant.slug, "messages": [{"role": "user", "content": f"{QUESTION} ({number})"}],
                "max_tokens": 6,
            }  # fmt: skip
            if number % 2:
                answer = await client.chat.completions.create(**asked)
                return answer.id, answer.choices[0].finish_reason
            chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
            return chunks[0].id, chunks[-1].choices[0].finish_reason

        return await asyncio.gather(*(one(number) for number in range(users)), return_exceptions=True)


def captured() -> int:
    until(lambda: not _captures_running(), "captures still run")
    return Quarantine.objects.count()


def test_thirty_two_clients_at_once_are_all_answered_and_captured(shop: Shop) -> None:
    answers = asyncio.run(crowd(shop, CROWD))
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert len({number for number, _ in answers}) == CROWD
    assert {finish for _, finish in answers} <= {"stop", "length"}
    assert captured() == CROWD


def test_thirty_two_questions_of_one_chain_at_once(shop: Shop) -> None:
    model = ChatOpenAI(
        model=shop.assistant.slug, base_url=f"{shop.url}/v1", api_key=SecretStr(shop.secret), max_retries=0, timeout=60,
        http_client=httpx.Client(trust_env=False), max_completion_tokens=6,
    )  # fmt: skip
    answers = model.batch([f"{QUESTION} ({number})" for number in range(CROWD)], config={"max_concurrency": CROWD})
    assert len({answer.response_metadata["id"] for answer in answers}) == CROWD
    assert captured() == CROWD


@pytest.fixture
def narrow(shop: Shop, settings: Any, tmp_path: Path) -> Iterator[Service]:
    """An engine that writes one answer at a time and lets three wait."""
    socket = tmp_path / "engine.sock"
    settings.RATCHET_ENGINE_URL = f"unix:{socket}"
    service = Service(
        TransformersEngine(shared_base(), cut_loops=False), token=django_settings.RATCHET_ENGINE_KEY, max_rows=1,
        max_waiting=3,
    )  # fmt: skip
    with servers.serving(service.app(), uds=socket, lifespan="on"):
        yield service


def test_whoever_finds_the_queue_full_is_told_when_to_come_back(shop: Shop, narrow: Service) -> None:
    """The model stands still until everybody waits or was refused: how fast it writes decides nothing."""
    go_on = threading.Event()
    narrow.scheduler.between_steps(lambda: go_on.wait(60))

    async def ask() -> list[Any]:
        asking = asyncio.create_task(crowd(shop, CROWD))
        refused = narrow.metrics.refused._value
        while refused.get() < CROWD - 3 and not asking.done():
            await asyncio.sleep(0.05)
        assert narrow.scheduler.waiting == 3
        go_on.set()
        return await asking

    try:
        answers = asyncio.run(asyncio.wait_for(ask(), 60))
    finally:
        go_on.set()
    refusals = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(refusals) == CROWD - 3
    for error in refusals:
        assert isinstance(error, openai.InternalServerError)
        assert (error.status_code, error.code) == (503, "engine_busy")
        assert int(error.response.headers["retry-after"]) >= 1
    assert narrow.scheduler.waiting == 0
    assert captured() == 3  # of a refusal there is no turn

"""LangChain's chat model for OpenAI, pointed at the assistant and otherwise unchanged."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.serving.conftest import QUESTION, Shop, turn_of


@pytest.fixture
def chat_model(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> ChatOpenAI:
    for name in [name for name in os.environ if name.startswith(("LANGSMITH", "LANGCHAIN", "OPENAI"))]:
        monkeypatch.delenv(name)
    return ChatOpenAI(
        model=shop.assistant.slug,
        base_url=f"{shop.url}/v1",
        api_key=SecretStr(shop.secret),
        temperature=0.3,
        max_retries=0,
        timeout=30,
        http_client=httpx.Client(trust_env=False),
        http_async_client=httpx.AsyncClient(trust_env=False),
        max_completion_tokens=12,
        stream_usage=True,
    )


def test_an_answer_with_its_id_and_usage(shop: Shop, chat_model: ChatOpenAI) -> None:
    message = chat_model.invoke([SystemMessage("You are a pirate."), HumanMessage(QUESTION)])
    direct = shop.ask()
    assert message.content == direct.choices[0].message.content
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == direct.usage.completion_tokens
    assert message.response_metadata["finish_reason"] == "length"
    turn = turn_of(message.response_metadata["id"])  # the key for feedback
    assert turn.question == QUESTION
    assert turn.history == []


def test_a_chain_with_history_streams_the_same(shop: Shop, chat_model: ChatOpenAI) -> None:
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{history}"), ("human", "{question}")])
    asked: dict[str, Any] = {
        "question": QUESTION, "history": [HumanMessage("Can I take my plan with me?"), AIMessage("It can move. [1]")],
    }  # fmt: skip
    chain = prompt | chat_model | StrOutputParser()
    whole = chain.invoke(asked)
    pieces = list(chain.stream(asked))
    assert "".join(pieces) == whole
    assert len(pieces) > 2

    async def streamed() -> list[Any]:
        return [chunk async for chunk in (prompt | chat_model).astream(asked)]

    chunks = asyncio.run(streamed())
    assert "".join(chunk.content for chunk in chunks) == whole
    assert sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks) == 12


def test_batches_and_retrieval_options(shop: Shop, chat_model: ChatOpenAI) -> None:
    few = chat_model.bind(extra_body={"retrieval": {"k": 1}})
    one, two = few.batch([QUESTION, "How do I read the meter?"])
    assert one.content
    assert turn_of(one.response_metadata["id"]).retrievals.count() == 1
    assert two.content != one.content


def test_tools_are_refused_and_not_ignored(chat_model: ChatOpenAI) -> None:
    def fee(plan: str) -> str:
        """The exit fee of a plan."""
        return plan

    with pytest.raises(openai.BadRequestError, match="Tools are not supported"):
        chat_model.bind_tools([fee]).invoke(QUESTION)
    called = AIMessage("", tool_calls=[{"name": "fee", "args": {}, "id": "call_1"}])
    assert chat_model.invoke([HumanMessage(QUESTION), called, HumanMessage(QUESTION)]).content
    with pytest.raises(openai.BadRequestError, match="Tools are not supported"):
        chat_model.invoke([HumanMessage(QUESTION), called, ToolMessage("£35", tool_call_id="call_1")])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError, match="Only text is read"):
        chat_model.invoke([HumanMessage([{"type": "text", "text": QUESTION}, image])])

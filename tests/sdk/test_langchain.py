"""The LangChain handler with the real langchain-core: chains as people write them."""

from __future__ import annotations

import asyncio
import uuid
from operator import itemgetter
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed (it is in the extra dev)")

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from capture.models import Turn
from ratchet_client import AsyncClient
from ratchet_client.langchain import RatchetHandler
from tests.sdk.conftest import House

QUESTION = "What does leaving early cost?"
ANSWER = "A fixed plan has an exit fee of £35."
DOCUMENTS = [
    Document(ANSWER, metadata={"source": "leaving.md", "title": "Leaving", "score": 0.9}),
    Document("   "),
    Document("Tell us 10 days before you move.", metadata={"source": "moving.md", "page": 3, "bad key": 1, "x": [1]}),
]


class Shelf(BaseRetriever):
    """Finds the same documents for every question."""

    documents: list[Document] = DOCUMENTS

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents


class Twice(BaseRetriever):
    """Asks another retriever with two wordings, and turns what it finds round, as a reranker would."""

    shelf: Shelf

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = [self.shelf.invoke(text, {"callbacks": run_manager.get_child()}) for text in (query, query.lower())]
        return list(reversed(found[0]))


PROMPT = ChatPromptTemplate.from_messages([("system", "Answer from: {context}"), ("human", "{question}")])


def rag(retriever: BaseRetriever, answer: str = ANSWER) -> Runnable[Any, Any]:
    model = FakeListChatModel(responses=[answer])
    return {"context": retriever, "question": RunnablePassthrough()} | PROMPT | model | StrOutputParser()


def logged(house: House) -> Turn:
    (turn,) = house.turns().values()
    return turn


def passages(turn: Turn) -> list[tuple[int, str]]:
    return [(found.rank, found.passage.source) for found in turn.retrievals.order_by("rank")]


def test_a_chain_becomes_a_turn_with_its_passages(house: House) -> None:
    run = uuid.uuid4()
    with house.client() as client:
        config: Any = {
            "callbacks": [RatchetHandler(client)], "run_id": run, "tags": ["web"],
            "metadata": {"conversation": "chat-82", "user": "u-17"},
        }  # fmt: skip
        assert rag(Shelf()).invoke(QUESTION, config) == ANSWER
        client.feedback(str(run), "thumb", value=1)
    turn = logged(house)
    assert (turn.client_id, turn.question, turn.response) == (str(run), QUESTION, ANSWER)
    assert passages(turn) == [(1, "leaving.md"), (3, "moving.md")]
    first = turn.retrievals.get(rank=1)
    assert (first.passage.title, first.score) == ("Leaving", 0.9)
    assert turn.conversation.external_id == "chat-82"
    assert turn.tags == ["web"]
    assert turn.latency_ms is not None
    assert client.stats == {"logged": 2, "created": 2}


def test_awaited_and_streamed_chains_too(house: House) -> None:
    async def main() -> None:
        async with AsyncClient(house.url, house.secret) as client:
            config: Any = {"callbacks": [RatchetHandler(client)]}
            await rag(Shelf()).ainvoke(QUESTION, config)
            assert "".join([piece async for piece in rag(Shelf()).astream("And this?", config)]) == ANSWER
            assert "".join(rag(Shelf()).stream("And that?", config)) == ANSWER
            await asyncio.gather(*(rag(Shelf()).ainvoke(f"Number {number}?", config) for number in range(5)))
            assert await client.flush()

    asyncio.run(main())
    turns = house.turns().values()
    asked = {QUESTION, "And this?", "And that?", *(f"Number {number}?" for number in range(5))}
    assert {turn.question for turn in turns} == asked
    assert {turn.response for turn in turns} == {ANSWER}
    assert all(len(passages(turn)) == 2 for turn in turns)


def test_history_comes_from_messages(house: House) -> None:
    history = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage([{"type": "text", "text": "Hello"}])]
    chain = {"context": itemgetter("input") | Shelf(), "question": itemgetter("input")} | PROMPT
    with house.client() as client:
        whole = chain | FakeListChatModel(responses=[ANSWER])
        whole.invoke({"input": QUESTION, "chat_history": history}, {"callbacks": [RatchetHandler(client)]})
    turn = logged(house)
    assert (turn.question, turn.response) == (QUESTION, ANSWER)
    assert [(message["role"], message["content"]) for message in turn.history] == [
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"),
    ]  # fmt: skip


def test_an_agent_of_messages(house: House) -> None:
    def answer(state: dict[str, Any]) -> dict[str, Any]:
        Shelf().invoke(state["messages"][-1].content)  # LangChain hands the callbacks on
        return {"messages": [*state["messages"], AIMessage(ANSWER)]}

    messages = [("human", "Hi"), ("ai", "Hello"), ("human", QUESTION)]
    with house.client() as client:
        state = {"messages": [HumanMessage(text) if who == "human" else AIMessage(text) for who, text in messages]}
        RunnableLambda(answer).invoke(state, {"callbacks": [RatchetHandler(client)]})
    turn = logged(house)
    assert (turn.question, turn.response, len(turn.history)) == (QUESTION, ANSWER, 2)
    assert passages(turn) == [(1, "leaving.md"), (3, "moving.md")]


def test_of_a_retriever_in_a_retriever_only_the_outer_counts(house: House) -> None:
    with house.client() as client:
        rag(Twice(shelf=Shelf())).invoke(QUESTION, {"callbacks": [RatchetHandler(client)]})
    assert passages(logged(house)) == [(1, "moving.md"), (3, "leaving.md")]


def test_model_and_tokens(house: House) -> None:
    said = AIMessage(
        ANSWER,
        usage_metadata={"input_tokens": 120, "output_tokens": 9, "total_tokens": 129},
        response_metadata={"model_name": "maker/model@3"},
    )
    model = GenericFakeChatModel(messages=iter([said]))
    chain = {"context": Shelf(), "question": RunnablePassthrough()} | PROMPT | model
    with house.client() as client:
        chain.invoke(QUESTION, {"callbacks": [RatchetHandler(client)]})
    turn = logged(house)
    assert (turn.model, turn.prompt_tokens, turn.completion_tokens) == ("maker/model-3", 120, 9)


def test_limits_of_the_api_are_kept(house: House) -> None:
    many = [Document(f"Passage {n}. " + "x" * (200_000 if n == 0 else 5)) for n in range(70)]
    with house.client() as client:
        config: Any = {"callbacks": [RatchetHandler(client)], "tags": ["t" * 90] * 30}
        rag(Shelf(documents=many)).invoke("q" * 30_000, config)
    turn = logged(house)
    assert len(turn.retrievals.all()) == 50
    assert len(turn.question) == 20_000
    assert client.stats["created"] == 1


def test_own_names_can_be_found(house: House) -> None:
    chain: Runnable[Any, Any] = RunnableLambda(lambda given: {"reply": {"words": ANSWER}})
    with house.client() as client:
        handler = RatchetHandler(client, question=lambda i: i["asked"], answer=lambda o: o["reply"]["words"])
        chain.invoke({"asked": QUESTION}, {"callbacks": [handler]})
    assert (logged(house).question, logged(house).response) == (QUESTION, ANSWER)


def test_what_fails_or_is_no_conversation_is_not_logged_and_nothing_raises(house: House) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("the chain's own")

    with house.client() as client:
        config: Any = {"callbacks": [RatchetHandler(client)]}
        with pytest.raises(RuntimeError, match="the chain's own"):
            RunnableLambda(fail).invoke(QUESTION, config)
        RunnableLambda(lambda given: 7).invoke({"a": 1}, config)
        Shelf().invoke(QUESTION, config)
        FakeListChatModel(responses=["x"]).invoke("Hi", config)
        bad: Any = {"callbacks": [RatchetHandler(client, answer=lambda outputs: 1 / 0)]}
        assert RunnableLambda(lambda given: given).invoke("Hi", bad) == "Hi"
    assert client.stats == {}

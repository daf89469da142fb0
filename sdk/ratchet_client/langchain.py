"""A LangChain callback handler: each outermost run of a chain becomes a turn, with what its retrievers found.

    chain.invoke({"input": question}, config={"callbacks": [RatchetHandler(client)]})

The turn's id is the id of that run, so a host that sets ``run_id`` can name the turn in feedback. From the run's
``metadata`` come ``conversation`` (or ``session_id``, ``thread_id``) and ``user`` (or ``user_id``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run

from .client import AsyncClient, Client
from .sending import log

_ROLES = {"human": "user", "ai": "assistant", "system": "system"}
_QUESTIONS = ("question", "input", "query", "messages", "text")
_ANSWERS = ("answer", "output", "response", "result", "messages", "text")
_HISTORIES = ("chat_history", "history", "messages", "input")
_UNLIKE_A_NAME = re.compile(r"[^\w.:/+~,=()\- ]")
_KEY = re.compile(r"[\w.:/-]{1,64}")


class RatchetHandler(BaseTracer):
    """Puts a turn into the client's queue when a chain has ended. One handler serves any number of runs at a time.

    question, answer: how to find them in a chain's inputs and outputs, where the usual names do not.
    """

    run_inline = True  # in order, also in asynchronous chains

    def __init__(
        self, client: Client | AsyncClient, *, question: Callable[[Mapping[str, Any]], str] | None = None,
        answer: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._client = client.sync if isinstance(client, AsyncClient) else client
        self._question = question or (lambda inputs: _text(_first(inputs, _QUESTIONS)))
        self._answer = answer or (lambda outputs: _text(_first(outputs, _ANSWERS)))

    def _persist_run(self, run: Run) -> None:
        try:
            if run.run_type == "chain" and not run.error:
                self._log(run)
        except Exception:
            log.exception("A run of LangChain could not be logged.")

    def _log(self, run: Run) -> None:
        models = [_model(below) for below in _below(run) if below.run_type in ("llm", "chat_model")]
        question = self._question(run.inputs)
        answer = self._answer(run.outputs or {}) or (models[-1]["text"] if models else "")
        if not question.strip() or not answer.strip():
            log.info("A run of LangChain without a question or an answer is not logged.")
            return
        metadata: Mapping[str, Any] = (run.extra or {}).get("metadata") or {}
        self._client.log_turn(
            question[:20_000],
            answer[:100_000],
            id=str(run.id),
            contexts=_contexts([document for below in _below(run) for document in _found(below)]),
            history=_history(run.inputs, question),
            conversation=_first(metadata, ("conversation", "session_id", "thread_id")),
            user=_first(metadata, ("user", "user_id")),
            time=run.start_time,
            latency_ms=(run.end_time - run.start_time).total_seconds() * 1000 if run.end_time else None,
            model=next((model["name"] for model in reversed(models)), None),
            prompt_tokens=sum(model["prompt"] for model in models) or None,
            completion_tokens=sum(model["completion"] for model in models) or None,
            tags=[tag[:60] for tag in run.tags or () if tag][:20],
        )


def _below(run: Run) -> Iterator[Run]:
    """The runs inside, in order. Not those inside a retriever: only what the outermost returns was used."""
    for child in run.child_runs:
        yield child
        if child.run_type != "retriever":
            yield from _below(child)


def _model(run: Run) -> dict[str, Any]:
    """What a model said: text, name, and tokens where it counts them."""
    outputs: Mapping[str, Any] = run.outputs or {}
    said: Mapping[str, Any] = next((one for many in outputs.get("generations") or () for one in many), {})
    message = (said.get("message") or {}).get("kwargs") or {}
    about = {**(outputs.get("llm_output") or {}), **(message.get("response_metadata") or {})}
    usage = message.get("usage_metadata") or {}
    name = _UNLIKE_A_NAME.sub("-", str(_first(about, ("model_name", "model")) or ""))[:200]
    prompt, completion = usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
    return {"text": said.get("text") or "", "name": name, "prompt": prompt, "completion": completion}


def _found(run: Run) -> Sequence[Document]:
    return (run.outputs or {}).get("documents") or () if run.run_type == "retriever" else ()


def _text(value: Any) -> str:
    """Of a string, a message, or the last of several; of anything else nothing."""
    if isinstance(value, BaseMessage):
        parts = value.content if isinstance(value.content, list) else [value.content]
        return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)
    if isinstance(value, list) and value:
        return _text(convert_to_messages(value)[-1])
    if isinstance(value, Mapping):
        return _text(_first(value, (*_ANSWERS, *_QUESTIONS)))
    return value if isinstance(value, str) else ""


def _first(among: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((among[name] for name in names if among.get(name)), None)


def _history(inputs: Mapping[str, Any], question: str) -> list[dict[str, str]]:
    given: list[Any] = next((inputs[name] for name in _HISTORIES if isinstance(inputs.get(name), list)), [])
    found = [(message.type, _text(message)) for message in convert_to_messages(given)]
    if found and found[-1] == ("human", question):
        found.pop()
    kept = [{"role": _ROLES[role], "content": text[:20_000]} for role, text in found if role in _ROLES and text.strip()]
    return kept[-100:]


def _contexts(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Of each text the first, with the rank at which it was found."""
    found: dict[str, dict[str, Any]] = {}
    for rank, document in enumerate(documents[:1000], start=1):
        if document.page_content.strip():
            found.setdefault(document.page_content, {**_context(document), "rank": rank})
    return list(found.values())[:50]


def _context(document: Document) -> dict[str, Any]:
    """With what of its metadata the API can hold."""
    about = document.metadata
    plain = {key: value for key, value in about.items() if isinstance(value, str | int) and len(str(value)) <= 200}
    score = _first(about, ("score", "relevance_score"))
    return {
        "text": document.page_content[:100_000],
        "title": str(about.get("title") or "")[:500],
        "source": str(_first(about, ("source", "url", "file_path")) or "")[:500],
        "metadata": {key: plain[key] for key in list(plain)[:40] if _KEY.fullmatch(str(key))},
        **({"score": float(score)} if isinstance(score, float) and math.isfinite(score) else {}),
    }

"""One question put to one or two arms: retrieved once, answered by each, nothing stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assistants.models import Assistant
from generation.engines import (
    AdapterRefused,
    EngineError,
    GenerationRequest,
    GenerationResult,
    PromptTooLong,
    UnknownAdapter,
)
from generation.prompts import Message
from serving import answering, chat, shortening
from serving.wire import DEFAULT_NEW_TOKENS

SECONDS = 60.0


@dataclass(frozen=True)
class Said:
    """What one arm answered, or why it did not."""

    model: str
    asked: chat.Asked
    result: GenerationResult | None = None
    problem: str = ""


def ask_arms(
    *,
    assistant: Assistant,
    models: Sequence[str],
    question: str,
    history: Sequence[Message],
    retrieval_options: Mapping[str, Any],
) -> list[Said]:
    """Each of ``models`` (names as the chat API takes them) answers. No experiment counts these questions.

    Raises:
        chat.UnknownModel, chat.ForeignPrompt: by `chat.resolve_model`.
        EngineError: nothing could be retrieved.
    """
    arms = [replace(chat.resolve_model(assistant, name), exposed=None, pinned=True) for name in models]
    first = chat.ask(
        assistant=assistant, arm=arms[0], question=question, history=history, retrieval_options=retrieval_options
    )
    return [_said(replace(first, arm=arm)) for arm in arms]


def _said(asked: chat.Asked) -> Said:
    """One arm after the other: the second one's prompt is read from what the first one left."""
    if (declined := asked.without_model()) is not None:
        return Said(asked.arm.model, asked, declined)
    for _ in range(answering.MAX_ATTEMPTS):
        try:
            (result,) = answering.client().generate([_request(asked)])
        except UnknownAdapter:
            assert asked.arm.adapter is not None
            try:
                answering.load_now(asked.arm.adapter, prompt_digest=asked.assistant.prompt_digest)
            except AdapterRefused as refused:
                return Said(asked.arm.model, asked, problem=str(refused))
        except PromptTooLong as long:
            shorter = shortening.shorten(asked, tokens=long.tokens, limit=long.limit)
            if shorter is None:
                return Said(asked.arm.model, asked, problem=str(long))
            asked = shorter
        except EngineError as error:
            return Said(asked.arm.model, asked, problem=str(error))
        else:
            return Said(asked.arm.model, asked, result)
    return Said(asked.arm.model, asked, problem="The engine did not keep the adapter.")


def _request(asked: chat.Asked) -> GenerationRequest:
    return GenerationRequest(
        messages=asked.prompt.messages,
        adapter=asked.arm.adapter.engine_name if asked.arm.adapter else None,
        max_new_tokens=DEFAULT_NEW_TOKENS,
        deadline=SECONDS,
    )

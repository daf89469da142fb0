"""From a question with its prompt to the engine's words.

What is missing is loaded, what does not fit is left out, and an adapter that cannot be served gives way to the base.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from django.conf import settings

from generation.engines import (
    AdapterRefused,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    PromptTooLong,
    UnknownAdapter,
)
from serving.capturing import in_thread
from serving.chat import Arm, Asked
from serving.shortening import shorten
from serving.wire import WireError
from training.finetune.bases import from_state
from training.providers.serving import served_elsewhere

if TYPE_CHECKING:
    from generation.client import EngineClient
    from generation.openai_compatible import OpenAIEngine
    from training.models import Adapter

logger = logging.getLogger(__name__)
T = TypeVar("T")
Piece = str | GenerationResult
MAX_ATTEMPTS = 8
"""One to ask, one to load, the rest to leave evidence out until the prompt fits."""
REMEMBER_REFUSAL = 30.0
"""Seconds for which a live adapter that was refused is not tried again: each try reads and hashes its files."""
_refused: dict[str, float] = {}


def client() -> EngineClient | OpenAIEngine:
    """What writes the answers."""
    # httpx is needed when the first question comes, not for every command
    if settings.RATCHET_OPENAI_BASE_URL:
        return _foreign(
            settings.RATCHET_OPENAI_BASE_URL, settings.RATCHET_OPENAI_API_KEY, settings.RATCHET_OPENAI_MODEL
        )
    from generation.client import default_client

    return default_client(settings.RATCHET_ENGINE_URL, settings.RATCHET_ENGINE_KEY)


@lru_cache(maxsize=2)
def _foreign(url: str, key: str, model: str) -> OpenAIEngine:
    from generation.openai_compatible import OpenAIEngine

    return OpenAIEngine(url, key, model)


async def whole(asked: Asked, *, max_new_tokens: int, stop: tuple[str, ...] = ()) -> tuple[Asked, GenerationResult]:
    """The answer in one piece, with the question as it was asked in the end.

    Raises:
        EngineError: as the engine says; PromptTooLong only when the question itself does not fit.
        WireError: an adapter that was asked for by number cannot be served.
    """
    if (declined := asked.without_model()) is not None:
        return asked, declined
    return await _attempts(asked, max_new_tokens, stop, client().agenerate)


async def streamed(
    asked: Asked, *, max_new_tokens: int, stop: tuple[str, ...] = ()
) -> tuple[Asked, Piece, AsyncGenerator[Piece, None]]:
    """As `whole`: the first piece, and the rest with the result last. Closing the rest stops the engine's work.

    Until the first piece is there, everything that can go wrong is an error with a status, and not a broken stream.
    """

    if (declined := asked.without_model()) is not None:
        return asked, declined.text, _only(declined)

    async def start(request: GenerationRequest) -> tuple[Piece, AsyncGenerator[Piece, None]]:
        pieces = client().astream(request)
        return await anext(pieces), pieces

    asked, (first, rest) = await _attempts(asked, max_new_tokens, stop, start)
    return asked, first, rest


async def _only(result: GenerationResult) -> AsyncGenerator[Piece, None]:
    yield result


async def _attempts(
    asked: Asked, max_new_tokens: int, stop: tuple[str, ...], ask: Callable[[GenerationRequest], Awaitable[T]]
) -> tuple[Asked, T]:
    asked = _without_refused(asked)
    for _ in range(MAX_ATTEMPTS):
        request = GenerationRequest(
            messages=asked.prompt.messages,
            adapter=asked.arm.adapter.engine_name if asked.arm.adapter else None,
            max_new_tokens=max_new_tokens,
            stop=stop,
            deadline=settings.RATCHET_ENGINE_TIMEOUT,
        )
        try:
            return asked, await ask(request)
        except UnknownAdapter:
            asked = await _loaded(asked)
        except PromptTooLong as long:
            shorter = shorten(asked, tokens=long.tokens, limit=long.limit)
            if shorter is None:
                raise
            asked = shorter
    raise EngineUnavailable("The engine did not keep the adapter.", "It may hold too many; see its log.")


async def _loaded(asked: Asked) -> Asked:
    """The engine has just started, or has never served this adapter: it is given the folder.

    Users go on getting answers when what is live cannot be served (another base, a file that was changed): the base
    model's, and the log says why.
    """
    adapter = asked.arm.adapter
    assert adapter is not None
    try:
        await load(adapter, prompt_digest=asked.assistant.prompt_digest)
    except AdapterRefused as refused:
        if asked.arm.pinned:
            raise WireError(409, _reason(adapter, refused), param="model", code="adapter_refused") from refused
        logger.error("%s cannot be served, the base model answers: %s", adapter.engine_name, refused)
        _refused[adapter.engine_name] = time.monotonic() + REMEMBER_REFUSAL
        return _on_base(asked)
    return asked


def _reason(adapter: Adapter, refused: AdapterRefused) -> str:
    """For whoever asked for it by number."""
    if not refused.quotes:
        return str(refused)
    logger.error("%s cannot be served: %s", adapter.engine_name, refused)
    return "This adapter cannot be served now; the log says why."


async def load(adapter: Adapter, *, prompt_digest: str) -> None:
    """Raises AdapterRefused or EngineUnavailable."""
    await in_thread(lambda: load_now(adapter, prompt_digest=prompt_digest))  # it may look for the adapter's provider


def load_now(adapter: Adapter, *, prompt_digest: str) -> None:
    """As `load`, waiting for it."""
    if served_elsewhere(adapter):  # there it needs no loading, so whoever wants to load it was told that it is unknown
        raise AdapterRefused(
            f"The provider does not know {adapter.remote_model!r} any more.",
            "Promote another adapter.",
            reason="remote",
        )
    client().load_adapter(
        adapter.engine_name,
        from_state(adapter.folder),
        base_digest=adapter.base_digest,
        prompt_digest=prompt_digest,
    )


def _without_refused(asked: Asked) -> Asked:
    adapter = asked.arm.adapter
    if adapter is None or asked.arm.pinned:
        return asked
    until = _refused.get(adapter.engine_name, 0.0)
    if until and time.monotonic() >= until:
        _refused.pop(adapter.engine_name, None)
        return asked
    return _on_base(asked) if until else asked


def _on_base(asked: Asked) -> Asked:
    """The prompt is the same; the turn will say that no adapter wrote the answer."""
    return replace(asked, arm=Arm(asked.arm.model, None, asked.arm.exposed))

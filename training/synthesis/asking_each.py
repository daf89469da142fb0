"""Asks an engine for many texts so that one that fails costs only itself: a sentence for it, the rest go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from generation.engines import BadRequest, EngineBusy, EngineError, EngineUnavailable, GenerationRequest

if TYPE_CHECKING:
    from generation.engines import Engine, GenerationResult

PARALLEL = 8
"""Requests to a teacher at a time: what small plans of hosted models allow."""
TRIES = 3
MAX_WAIT = 20.0
"""Seconds that a busy teacher is waited for, whatever it asks for."""


class TeacherFails(RuntimeError):
    """The teacher fails again and again; what is kept stays, and the work can go on later."""


@dataclass(frozen=True)
class Reply:
    """``error``: why there is no text, in one sentence."""

    text: str = ""
    error: str = ""
    tokens: int = 0
    seconds: float = 0.0


def teacher_engine(model: str = "") -> tuple[Engine, str]:
    """The teacher and its model's name.

    Raises:
        TeacherFails: no address is set.
    """
    from generation.openai_compatible import OpenAIEngine

    own = bool(settings.RATCHET_TEACHER_BASE_URL)
    url = settings.RATCHET_TEACHER_BASE_URL or settings.RATCHET_OPENAI_BASE_URL
    key = settings.RATCHET_TEACHER_API_KEY if own else settings.RATCHET_OPENAI_API_KEY
    name = model or (settings.RATCHET_TEACHER_MODEL if own else settings.RATCHET_OPENAI_MODEL)
    if not url:
        raise TeacherFails("No teacher is set up: name its address in RATCHET_TEACHER_BASE_URL.")
    if not name:
        raise TeacherFails("The teacher's model has no name: set RATCHET_TEACHER_MODEL, or name it in the plan.")
    return OpenAIEngine(url, key, name, settings="RATCHET_TEACHER" if own else "RATCHET_OPENAI"), name


def ask_each(
    engine: Engine,
    requests: Sequence[GenerationRequest],
    *,
    parallel: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Reply]:
    """A reply for each request, in order. ``parallel``: one call for each, a few at a time, each tried again while the
    server is busy or silent; else one call for all, as an engine in this process batches best."""
    if not requests:
        return []
    if not parallel:
        return [_reply(result) for result in engine.generate(requests)]
    pool = ThreadPoolExecutor(min(PARALLEL, len(requests)))
    try:
        return list(pool.map(lambda request: _ask_one(engine, request, sleep), requests))
    finally:
        # Cancelled in between, what has not been asked yet is not asked any more, and nobody waits for what has been.
        pool.shutdown(wait=False, cancel_futures=True)


def _ask_one(engine: Engine, request: GenerationRequest, sleep: Callable[[float], None]) -> Reply:
    began = time.monotonic()
    error = ""
    for number in range(1, TRIES + 1):
        try:
            return _reply(engine.generate([request])[0])
        except EngineBusy as busy:
            error = str(busy)
            wait = min(busy.retry_after * number, MAX_WAIT)
        except BadRequest as refused:
            return Reply(error=_shortened(str(refused)), seconds=time.monotonic() - began)
        except EngineUnavailable as silent:
            error = str(silent)
            wait = min(0.5 * number, MAX_WAIT)
        except EngineError as other:
            return Reply(error=_shortened(str(other)), seconds=time.monotonic() - began)
        if number < TRIES:
            sleep(wait)
    return Reply(error=_shortened(error), seconds=time.monotonic() - began)


def _reply(result: GenerationResult) -> Reply:
    return Reply(result.text, "", result.prompt_tokens + result.completion_tokens, result.seconds)


def _shortened(text: str) -> str:
    """A server's words may be long, and may repeat what it was sent: the first ones say enough."""
    return " ".join(text.split())[:200]

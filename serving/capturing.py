"""Every answer becomes a turn of the log, behind the answer and never in front of it.

When capture is down, or the process has to stop, the turn is spooled: the user never waits for the log, and the log
loses no turn of which a user has seen anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from assistants.models import ApiKey
from serving import chat, spool

logger = logging.getLogger(__name__)
T = TypeVar("T")
UNFINISHED, LOOPED = "unfinished", "looped"
"""Tags of turns: the answer broke off on its way; the model repeated itself and was stopped."""
_background: set[asyncio.Task[None]] = set()
"""Running captures: the event loop itself keeps only weak references to tasks."""


def capture_later(asked: chat.Asked, key: ApiKey, item: dict[str, Any]) -> None:
    """``item`` is of `chat.turn_item`. Returns at once."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # a stream that nobody closed is being collected, maybe as the process ends
        spool.keep(asked.assistant, key, item)
        return
    task = loop.create_task(_capture(asked, key, item))
    _background.add(task)
    task.add_done_callback(_background.discard)


def running() -> int:
    return len(_background)


async def _capture(asked: chat.Asked, key: ApiKey, item: dict[str, Any]) -> None:
    try:
        await in_thread(lambda: chat.capture(asked, key, item))
    except asyncio.CancelledError:  # the process stops; twice is harmless, ids are idempotent
        spool.keep(asked.assistant, key, item)
        raise
    except Exception:
        logger.exception("A turn of ours was not captured; it is spooled.")
        await asyncio.to_thread(spool.keep, asked.assistant, key, item)
        return
    if await asyncio.to_thread(spool.has_waiting):
        await in_thread(spool.drain)  # capture is back


async def in_thread(function: Callable[[], T]) -> T:
    """Database work off the event loop, with its connection given back to the pool at once."""

    def run() -> T:
        try:
            return function()
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=False)()

"""A client that stops reading does not keep what its answer holds: a place among the exports, a thread, a connection.

A server waits as long as it takes for a client to read. Here each piece of an answer has a time in which it must be
taken; then the answer is broken off as if the client had gone. What goes on slowly is no matter, nor is an answer that
takes its time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from django.conf import settings

logger = logging.getLogger(__name__)


def impatient(send: Any) -> Any:
    """ASGI's ``send``, each call of which ends after ``RATCHET_SEND_TIMEOUT`` seconds."""

    async def timed(message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(settings.RATCHET_SEND_TIMEOUT):
                await send(message)
        except TimeoutError:
            logger.warning("A client has not read for %s s. Its answer was broken off.", settings.RATCHET_SEND_TIMEOUT)
            # What Django takes for a client that has gone: it closes the source of the answer, and ends regularly.
            raise asyncio.CancelledError("the client stopped reading") from None

    return timed

"""A client that stops sending, or sends a byte now and then, does not keep a request open for ever.

A server waits for a body as long as it takes. Here it may take `RATCHET_RECEIVE_TIMEOUT` seconds and one more for each
`SLOWEST` bytes that have come: whoever sends at any usable speed is never cut off, however much it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from config.doorman import Refused
from config.shaped import shaped

logger = logging.getLogger(__name__)

SLOWEST = 1024
"""Bytes in a second."""


def timely(scope: Mapping[str, Any], receive: Any) -> Any:
    """ASGI's ``receive``, which raises `config.doorman.Refused` (408) when the body comes too slowly.

    Behind the body it waits without end, as ``receive`` does: for the client to leave.
    """
    began: float | None = None
    taken, whole = 0, False

    async def timed() -> dict[str, Any]:
        nonlocal began, taken, whole
        message: dict[str, Any]
        if whole:
            message = await receive()
            return message
        if began is None:
            began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(began + settings.RATCHET_RECEIVE_TIMEOUT + taken / SLOWEST):
                message = await receive()
        except TimeoutError:
            logger.warning("A body for %s came too slowly and was given up.", scope["path"][:100])
            raise Refused(shaped(scope["path"], 408, "The body did not come in time. Send it again.")) from None
        taken += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        return message

    return timed

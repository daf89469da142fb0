"""Downloads are streamed asynchronously: read here as a server would."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync


def whole(answer: Any) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in answer.streaming_content])

    return async_to_sync(collect)()

"""No body is taken off the line, and put on disk, that no page could use.

Django's asynchronous handler stores the whole body in a temporary file before it looks at who sent it, and to what. Of
the posts in `config.intake` what is over the limit is dropped; here, where files of half a gigabyte are allowed on one
page, the rest ends at what that page takes.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings

from config.errors import is_api_path
from config.shaped import shaped

logger = logging.getLogger(__name__)

ADAPTER_IMPORT = "/admin/training/adapter/import/"
FORM = 4 * 1024 * 1024
"""For what a form holds beside its files: names and headers of a thousand files, configuration files of an adapter."""


class _TooLarge(Exception):
    pass


def limit_of(path: str) -> int:
    """Bytes of a body that are read at this address; the views have tighter limits of their own."""
    body = int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    if is_api_path(path):
        return body + FORM
    if path == ADAPTER_IMPORT:
        return max(body, settings.RATCHET_MAX_ADAPTER_BYTES) + FORM
    return max(body, settings.RATCHET_UPLOAD_MAX_BYTES) + FORM


def bounded(application: Any) -> Any:
    """``application``, whose requests end with 413 where they are larger than `limit_of` their path."""

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        limit = limit_of(scope["path"])
        if _declared(scope) > limit:
            await _refuse(scope, send, limit)
            return
        left, started = limit, False

        async def counted() -> dict[str, Any]:
            nonlocal left
            message: dict[str, Any] = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLarge
            return message

        async def noted(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await application(scope, counted, noted)
        except _TooLarge:
            if not started:
                await _refuse(scope, send, limit)

    return answer


def _declared(scope: dict[str, Any]) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(scope: dict[str, Any], send: Any, limit: int) -> None:
    path = scope["path"]
    said = f"The request is larger than {limit // 2**20} MiB, which is all that is read at this address."
    if path == ADAPTER_IMPORT:
        said += " Raise RATCHET_MAX_ADAPTER_BYTES, or use manage.py import_adapter on the server."
    logger.warning("A request to %s was larger than %d MiB.", path[:100], limit // 2**20)
    await shaped(path, 413, said, code="too-large").send(send)

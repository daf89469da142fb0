"""Nothing large is taken from somebody who has shown neither a key nor a session.

Views ask who is there once the body is in, and by then Django has put it on disk. So where a body is larger than any
form or any program's usual request, the question is asked in front of it, on the line: addresses of programs want a
usable key, pages somebody who is signed in and an admin or a privacy officer of some assistant, since nobody else
uploads, or pastes long lists. The view decides as before what that key or person may do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.db import DatabaseError, InterfaceError, connection
from django.http import HttpRequest, parse_cookie
from django.shortcuts import resolve_url

from assistants.access import holds_anywhere
from assistants.auth import authenticate_key
from assistants.errors import ApiError
from assistants.models import Role
from config.errors import is_api_path
from config.shaped import Answer, shaped

logger = logging.getLogger(__name__)

FREE = 1024 * 1024
"""Bytes that anybody may send. Django holds so much in memory; a file is begun with more."""
DRAIN_SECONDS = 60


class Refused(Exception):
    """The body is not read on; ``answer`` is what to say instead of the application."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def guarded(scope: Mapping[str, Any], receive: Any, most: int) -> Any:
    """ASGI's ``receive``, which raises `Refused` where a body of more than `FREE` bytes comes from a stranger.

    What a stranger still sends is dropped, up to ``most`` bytes and for a minute: a browser whose session has ended
    shows an answer only when it was let finish. A client that asks first (Expect: 100-continue) is answered at once.
    """
    asked = False
    taken = 0

    async def counted() -> dict[str, Any]:
        nonlocal asked, taken
        if not asked and _declared(scope) > FREE:
            asked = True
            if (answer := await _refusal(scope)) is not None:
                if _header(scope, b"expect").lower() != b"100-continue":
                    await _drain(receive, most)
                raise Refused(answer)
        message: dict[str, Any] = await receive()
        taken += len(message.get("body", b""))
        if taken > FREE and not asked:
            asked = True
            if (answer := await _refusal(scope)) is not None:
                if message.get("more_body"):
                    await _drain(receive, most - taken)
                raise Refused(answer)
        return message

    return counted


async def _drain(receive: Any, most: int) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _refusal(scope: Mapping[str, Any]) -> Answer | None:
    # Not in the thread that the request's views will share: a request waits here for nobody else's.
    answer = await sync_to_async(_ask, thread_sensitive=False)(scope)
    if answer is not None:
        logger.warning(
            "A body of more than %d bytes for %s was not read (%d).", FREE, scope["path"][:100], answer.status
        )
    return answer


def _ask(scope: Mapping[str, Any]) -> Answer | None:
    path: str = scope["path"]
    try:
        return _ask_key(scope) if is_api_path(path) else _ask_person(scope)
    except (DatabaseError, InterfaceError):
        logger.exception("Who sends a large body could not be asked.")
        said = "The service is busy or starting; try again shortly."
        return shaped(path, 503, said, headers={"Retry-After": "5"})
    finally:
        connection.close()  # gives it back to the pool


def _ask_key(scope: Mapping[str, Any]) -> Answer | None:
    try:
        authenticate_key(_header(scope, b"authorization").decode("latin-1"))
    except ApiError as error:
        return shaped(scope["path"], error.status_code, str(error.detail), headers=error.headers)
    return None


def _ask_person(scope: Mapping[str, Any]) -> Answer | None:
    from django.contrib.sessions.backends.db import SessionStore  # its model needs the apps

    request = HttpRequest()
    cookies = parse_cookie(_header(scope, b"cookie").decode("latin-1"))
    request.session = SessionStore(cookies.get(settings.SESSION_COOKIE_NAME))
    user = get_user(request)
    path: str = scope["path"]
    if not (user.is_authenticated and user.is_active):
        back = quote(path, safe="/")
        return shaped(
            path, 302, "Sign in first.", headers={"Location": f"{resolve_url(settings.LOGIN_URL)}?next={back}"}
        )
    if not holds_anywhere(user, Role.ADMIN, Role.PRIVACY):
        return shaped(path, 403, "Only admins and privacy officers of an assistant may send this much.")
    return None


def _declared(scope: Mapping[str, Any]) -> int:
    value = _header(scope, b"content-length")
    return int(value[:20]) if value.isdigit() else 0


def _header(scope: Mapping[str, Any], wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""

"""Requests that only write, answered by Django's synchronous side in one thread.

Django's asynchronous handler gives each request a thread of its own and crosses between it and the event loop about ten
times, once or twice for every middleware. For an answer that is streamed that is the price; for a batch that is parsed,
sealed and inserted it cost more than the work itself (docs/log.md). The same views, errors and limits run here, and the
same middleware but for what only pages have, in a fixed number of threads, each with the request from its first
middleware to its last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from config.answers import AnswerHandler, is_asked
from config.bounds import bounded, limit_of
from config.doorman import FREE, Refused, guarded
from config.receiving import timely
from config.sending import impatient
from config.shaped import shaped

logger = logging.getLogger(__name__)
Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
"""Of ASGI: scope, receive, send."""
PATHS = frozenset({"/api/v1/turns", "/api/v1/turns/batch", "/api/v1/feedback", "/api/v1/traces", "/v1/traces"})
"""Taken here when they are posted to. None of them streams its answer."""
THREADS = 8
MOST_HELD = 256 * 1024 * 1024
"""Bytes of bodies in memory from which on only small ones are taken; each may have `RATCHET_MAX_BODY_BYTES`."""
BUSY = "Many large requests are being taken in. Send it again in a moment."
OF_PAGES = frozenset(
    {
        "config.middleware.HealthMiddleware",
        "config.middleware.static_files",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    }
)
"""Left out here: what has a cookie, or another address. A key says who posts, and none of `PATHS` asks for more."""


def dispatching(application: Application) -> Application:
    """``application``, with the posts to `PATHS` and the questions of chat clients taken out of it; to all but the
    former a client must go on listening.

    Of none is a large body taken from a stranger (`config.doorman`).
    """
    intake, others, answers = IntakeHandler(), bounded(application), bounded(AnswerHandler())

    async def dispatch(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":  # no server of ours offers one; Django would raise
            await receive()
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await others(scope, receive, send)
            return
        asked = guarded(scope, timely(scope, receive), limit_of(scope["path"]))
        try:
            if scope["method"] == "POST" and scope["path"] in PATHS:
                await intake.handle(scope, asked, send)
            else:
                await (answers if is_asked(scope["path"]) else others)(scope, asked, impatient(send))
        except Refused as refused:
            await refused.answer.send(send)

    return dispatch


class IntakeHandler(ASGIHandler):
    """Reads the body on the event loop, then hands the request to a thread until its answer is ready."""

    def __init__(self) -> None:
        super(ASGIHandler, self).__init__()  # its own loads the asynchronous middleware
        every = settings.MIDDLEWARE
        try:  # Django reads the list from the settings, and nowhere else
            settings.MIDDLEWARE = [name for name in every if name not in OF_PAGES]
            self.load_middleware(is_async=False)
        finally:
            settings.MIDDLEWARE = every
        self.held = 0
        """Bytes of all bodies that are being taken in or answered. Changed on the event loop only."""
        self._threads = ThreadPoolExecutor(_threads(), thread_name_prefix="intake")

    async def handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Raises `config.doorman.Refused`: see `take_in`."""
        try:
            body = await self.take_in(receive, scope["path"])
        except RequestAborted:
            return
        # An answer is finished even when the client has gone: the work is durable by then, or half a second from it.
        try:
            response = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, scope, body)
        finally:
            self.held -= len(body)
        await self.send_response(response, send)

    async def take_in(self, receive: Any, path: str) -> bytes:
        """Django puts what is large on disk, readable, before it is encrypted; here nothing leaves memory. Of a body
        over the limit as much is kept as shows it, so that the view refuses it; the rest is taken off the line and
        dropped. Whoever gets a body gives its size back to `held`.

        Raises:
            config.doorman.Refused: 503, all that is being taken in has no room for another large one.
            RequestAborted: the client has gone.
        """
        pieces: list[bytes] = []
        taken, most = 0, settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1
        whole = False
        try:
            while not whole:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestAborted
                piece = message.get("body", b"")[: most - taken]
                taken, self.held = taken + len(piece), self.held + len(piece)
                if self.held > MOST_HELD and taken > FREE:
                    logger.warning(
                        "%s MB of requests are being taken in; a large one has to come again.", self.held >> 20
                    )
                    raise Refused(shaped(path, 503, BUSY, headers={"Retry-After": "2"}))
                pieces.append(piece)
                whole = not message.get("more_body", False)
            return b"".join(pieces)
        except BaseException:
            self.held -= taken
            raise

    def _answer(self, scope: dict[str, Any], body: bytes) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, refusal = self.create_request(scope, BytesIO(body))
        response = self.get_response(request) if request is not None else refusal
        assert response is not None
        response.close()  # before it is sent: it gives the connection back to the pool
        return response


def _threads() -> int:
    """No more than there are connections: a thread without one would wait, and then refuse."""
    pool = settings.DATABASES["default"].get("OPTIONS", {}).get("pool")
    return min(THREADS, pool["max_size"]) if isinstance(pool, dict) else THREADS

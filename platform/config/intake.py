"""Requests that only write, answered by Django's synchronous side in one thread.

Django's asynchronous handler gives each request a thread of its own and crosses between it and the event loop about ten
times, once or twice for every middleware. For an answer that is streamed that is the price; for a batch that is parsed,
sealed and inserted it cost more than the work itself (docs/log.md). The same views, errors and limits run here, and the
same middleware but for what only pages have, in a fixed number of threads, each with the request from its first
middleware to its last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from config.answers import AnswerHandler, is_asked
from config.bounds import bounded, limit_of
from config.doorman import Refused, guarded
from config.receiving import timely
from config.sending import impatient

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
"""Of ASGI: scope, receive, send."""
PATHS = frozenset({"/api/v1/turns", "/api/v1/turns/batch", "/api/v1/feedback", "/api/v1/traces", "/v1/traces"})
"""Taken here when they are posted to. None of them streams its answer."""
THREADS = 8
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
        self._threads = ThreadPoolExecutor(_threads(), thread_name_prefix="intake")

    async def handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        # An answer is finished even when the client has gone: the work is durable by then, or half a second from it.
        response = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, scope, body)
        await self.send_response(response, send)

    async def read_body(self, receive: Any) -> IO[bytes]:
        """As Django's, which puts all that comes on disk before anybody has shown a key. Of a body over the limit as
        much is kept as shows it, so that the view refuses it; the rest is taken off the line and dropped. What stays in
        memory is joined once and read as it is: a file in memory copied it when it grew, and when it was read."""
        pieces: list[bytes] = []
        file: IO[bytes] | None = None
        in_memory, room = settings.FILE_UPLOAD_MAX_MEMORY_SIZE, settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                if file is not None:
                    file.close()
                raise RequestAborted
            piece = message.get("body", b"")[:room]
            room -= len(piece)
            in_memory -= len(piece)
            if file is None and in_memory < 0:
                file = SpooledTemporaryFile(max_size=settings.FILE_UPLOAD_MAX_MEMORY_SIZE)  # noqa: SIM115
                file.writelines(pieces)
                pieces.clear()
            if file is None:
                pieces.append(piece)
            else:
                file.write(piece)
            if not message.get("more_body", False):
                if file is None:
                    return BytesIO(b"".join(pieces))
                file.seek(0)
                return file

    def _answer(self, scope: dict[str, Any], body: IO[bytes]) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, refusal = self.create_request(scope, body)
        response = self.get_response(request) if request is not None else refusal
        assert response is not None
        response.close()  # before it is sent: it gives the connection back to the pool
        body.close()
        return response


def _threads() -> int:
    """No more than there are connections: a thread without one would wait, and then refuse."""
    pool = settings.DATABASES["default"].get("OPTIONS", {}).get("pool")
    return min(THREADS, pool["max_size"]) if isinstance(pool, dict) else THREADS

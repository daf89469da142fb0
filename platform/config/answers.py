"""Questions of chat clients, answered on the event loop from the first middleware to the last.

Django sends a request through a thread and back for every middleware of its own, for its signals and for closing the
answer: some ten times, each of which waits for its turn behind whatever runs. An answer that a model writes is waited
for on the loop anyhow, and its database work has threads of its own (`serving.capturing.in_thread`). So the middleware
that only looks at headers is called where it is, what only pages have is left out, and the signals, whose receivers
have nothing to do here, are sent on the spot.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

MIDDLEWARE = (
    "config.middleware.HeadersMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "config.middleware.HostMiddleware",
    "config.middleware.ApiErrorMiddleware",
)


def is_asked(path: str) -> bool:
    """Whether the address is one of OpenAI's that `serving.api` answers."""
    return path in {"/v1/chat/completions", "/v1/models"} or path.startswith("/v1/models/")


class AnswerHandler(ASGIHandler):
    """For `is_asked` alone: views that touch no database outside of their own threads."""

    def __init__(self) -> None:
        super(ASGIHandler, self).__init__()  # its own loads the middleware of pages
        every = settings.MIDDLEWARE
        try:  # Django reads the list from the settings, and nowhere else
            settings.MIDDLEWARE = list(MIDDLEWARE)
            self.load_middleware(is_async=True)
        finally:
            settings.MIDDLEWARE = every

    async def handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            set_script_prefix(get_script_prefix(scope))
            signals.request_started.send(sender=self.__class__, scope=scope)
            request, refusal = self.create_request(scope, body)
            if request is None:
                assert refusal is not None
                await self.send_response(refusal, send)
                refusal.close()
                return
            await self._until_it_leaves(request, receive, send)

    async def _until_it_leaves(self, request: HttpRequest, receive: Any, send: Any) -> None:
        """The answer, unless the client goes before: then the view is cancelled."""
        answering = asyncio.create_task(self._answer(request, send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if gone := not answering.done():
                answering.cancel()
                with suppress(asyncio.CancelledError):
                    await answering
            with suppress(asyncio.CancelledError, RequestAborted):
                await leaving
        if not gone:
            answering.result()

    async def _answer(self, request: HttpRequest, send: Any) -> None:
        response: HttpResponseBase = await self.run_get_response(request)
        try:
            with suppress(asyncio.CancelledError):  # it left while the answer was sent, or reads no more
                await self.send_response(response, send)
        finally:
            response.close()

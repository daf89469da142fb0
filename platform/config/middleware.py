"""Small middlewares: what a page may load, static files, probes, and that an API never answers with an HTML page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, ClassVar, cast

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.db import DataError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.decorators import sync_and_async_middleware

from config import health
from config.error_pages import error_page
from config.errors import bad_request, is_api_path, problem

type_of_next = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]

# The admin theme runs Alpine.js, which compiles the expressions in its attributes (hence unsafe-eval) and sets styles
# on elements (hence unsafe-inline for styles only). Inline scripts and foreign addresses stay forbidden: text from a
# log that escaped escaping would still not run.
PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'"


_OF_PROGRAMS = ("application/problem+json", "application/json", "application/x-protobuf")
"""Content types of errors that an API has written itself; the last is that of traces."""


class _Middleware:
    """Runs on the event loop when the next one does: a sync middleware would hold up streamed answers."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: type_of_next) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._answer(request)
        return self.finish(request, cast("HttpResponseBase", self.get_response(request)))

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        return self.finish(request, await cast("Awaitable[HttpResponseBase]", self.get_response(request)))

    def finish(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        raise NotImplementedError


class ContentSecurityPolicyMiddleware(_Middleware):
    """Sets Content-Security-Policy unless the view has set its own."""

    def finish(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", API_POLICY if is_api_path(request.path) else PAGE_POLICY)
        return response


class _Inline(_Middleware):
    """Middleware of Django's that only computes, called where it is: its own asynchronous side would send it through a
    thread (see `config.answers`)."""

    kinds: ClassVar[tuple[type[Any], ...]] = ()

    def __init__(self, get_response: type_of_next) -> None:
        super().__init__(get_response)
        self.parts = [kind(get_response) for kind in self.kinds]

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        for part in self.parts:
            before = getattr(part, "process_request", None)
            if before is not None and (early := before(request)) is not None:
                return self.finish(request, early)
        return self.finish(request, await cast("Awaitable[HttpResponseBase]", self.get_response(request)))

    def finish(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        for part in reversed(self.parts):
            response = part.process_response(request, response)
        return response


class HeadersMiddleware(_Inline):
    """Encryption, and the headers of security, of which none refuses anything."""

    kinds = (SecurityMiddleware, XFrameOptionsMiddleware)


class HostMiddleware(_Inline):
    """The host's name, and the length of an answer."""

    kinds = (CommonMiddleware,)


@sync_and_async_middleware
def static_files(get_response: type_of_next) -> type_of_next:
    """ServeStatic's middleware, which knows event loops only: in a synchronous chain, where Django would start a loop
    for every request because of it, only what asks for a static file goes through it."""
    from servestatic.middleware import ServeStaticMiddleware

    if iscoroutinefunction(get_response):
        return cast("type_of_next", ServeStaticMiddleware(get_response))

    @cache
    def files() -> type_of_next:
        return cast("type_of_next", async_to_sync(ServeStaticMiddleware(sync_to_async(get_response))))

    def answer(request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        is_file = request.path_info.startswith(str(settings.STATIC_URL))
        return files()(request) if is_file else get_response(request)

    return answer


class HealthMiddleware(_Middleware):
    """Answers probes itself, before the host name is looked at: supervisors and load balancers ask by address, which
    ALLOWED_HOSTS need not hold. The answers repeat nothing of the request."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if request.path_info not in health.PROBES:
            return self.get_response(request)
        probe = health.PROBES[request.path_info]
        return sync_to_async(probe)(request) if self.is_async else probe(request)


class ApiErrorMiddleware(_Middleware):
    """Turns Django's own refusals on API paths (405 of a plain view, 400 of a bad body) into problem+json, and what is
    refused without a word on a page (405) into one.

    And everywhere, what only PostgreSQL noticed: a NUL in an address or a field is a 400 and no error of ours.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        unstorable = isinstance(exception, DataError) and "NUL (0x00)" in str(exception)
        return bad_request(request, exception) if unstorable else None

    def finish(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.status_code < 400 or response.streaming:
            return response
        if not is_api_path(request.path):
            return _worded(request, response)
        if response.headers.get("Content-Type", "").startswith(_OF_PROGRAMS):
            return response
        kept = {name: response.headers[name] for name in ("Allow", "Retry-After") if name in response.headers}
        return problem(request, status=response.status_code, headers=kept)


def _worded(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """A session that ends while somebody works leads, by way of the login, to an address that takes a POST only."""
    if response.status_code != 405 or request.method != "GET":
        return response
    page = error_page(request, 405)
    page.headers["Allow"] = response.headers.get("Allow", "POST")
    return page

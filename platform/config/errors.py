"""One shape for every API error: problem details (RFC 9457), served as application/problem+json.

``{type, title, status, detail, instance, errors: [{field, message, item?}]}``. ``item`` is the 0-based place in a batch
and ``field`` a path such as ``contexts.0.text``, so that a program can point at what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import set_rollback

from config.error_pages import error_page

API_PREFIXES = ("/api/", "/v1/")
CONTENT_TYPE = "application/problem+json"
MAX_ERRORS = 200
"""A bad batch names its first errors; nobody reads more, and the answer stays small."""

DETAILS = {
    400: "The request could not be read.",
    401: "Send a valid key: Authorization: Bearer rk_…",
    403: "This key may not do that.",
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    409: "This conflicts with what is stored.",
    413: "The request is larger than allowed.",
    415: "Send JSON: Content-Type: application/json.",
    422: "Some fields are not valid.",
    429: "Too many requests; wait and try again.",
    500: "Something went wrong on our side; it has been logged.",
    503: "The service is busy or starting; try again shortly.",
}


class Conflict(exceptions.APIException):
    """409: same id with other content, or a state that does not allow it."""

    status_code = HTTPStatus.CONFLICT
    default_detail = DETAILS[409]
    default_code = "conflict"


class TooLarge(exceptions.APIException):
    """413: over a limit; the message says which."""

    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_detail = DETAILS[413]
    default_code = "too_large"


class Unavailable(exceptions.APIException):
    """503: something that this needs does not answer right now."""

    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_detail = DETAILS[503]
    default_code = "unavailable"


def is_api_path(path: str) -> bool:
    return path.startswith(API_PREFIXES)


def problem_body(
    status: int, *, detail: str = "", instance: str = "", errors: list[dict[str, Any]] | None = None, code: str = ""
) -> dict[str, Any]:
    """The body of a problem. ``type`` is about:blank, or a stable word that programs may compare with."""
    body: dict[str, Any] = {
        "type": f"urn:ratchet:{code}" if code else "about:blank",
        "title": HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error",
        "status": status,
        "detail": detail or DETAILS.get(status, ""),
        "instance": instance,
    }
    if errors:
        body["errors"] = errors[:MAX_ERRORS]
    return body


def problem(
    request: HttpRequest,
    *,
    status: int,
    detail: str = "",
    errors: list[dict[str, Any]] | None = None,
    code: str = "",
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:
    """A problem as an answer of a plain (also async) view."""
    body = problem_body(status, detail=detail, instance=request.path, errors=errors, code=code)
    all_headers = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        all_headers.setdefault("WWW-Authenticate", 'Bearer realm="ratchet"')
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        all_headers.setdefault("Retry-After", "5")
    return JsonResponse(body, status=status, content_type=CONTENT_TYPE, headers=all_headers)


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """For Django REST framework. Unknown exceptions return None: they are logged with their trace and become a 500."""
    request: Request = context["request"]
    error = _as_api_exception(exc)
    if error is None:
        return None
    set_rollback()
    status = int(error.status_code)
    errors: list[dict[str, Any]] = []
    detail = ""
    if isinstance(error, exceptions.ValidationError):
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        errors = list(flatten(error.get_full_details()))
        detail = summary(errors)
    elif isinstance(error, exceptions.ParseError):
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        detail = str(error.detail)
    elif isinstance(error.detail, str):
        detail = str(error.detail)
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        status = HTTPStatus.UNAUTHORIZED  # the framework says 403 where a view has no authentication of its own
    errors = errors or list(getattr(error, "errors", ()))  # assistants.errors.ApiError brings its own
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "wait", None) or 1)))
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", "5")
    if status == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("WWW-Authenticate", getattr(error, "auth_header", 'Bearer realm="ratchet"'))
    code = str(error.get_codes()) if isinstance(error.detail, str) else ""
    body = problem_body(status, detail=detail, instance=request.path, errors=errors, code=_stable(code))
    body["title"] = getattr(error, "title", body["title"])
    return Response(body, status=status, headers=headers, content_type=CONTENT_TYPE)


_OWN_CODES = {"conflict", "too_large", "unavailable", "throttled", "not_authenticated", "authentication_failed"}


def _stable(code: str) -> str:
    return code.replace("_", "-") if code in _OWN_CODES else ""


def _as_api_exception(exc: Exception) -> exceptions.APIException | None:
    if isinstance(exc, exceptions.APIException):
        return exc
    if isinstance(exc, Http404):
        return exceptions.NotFound()
    if isinstance(exc, PermissionDenied):
        return exceptions.PermissionDenied(DETAILS[403])
    if isinstance(exc, RequestDataTooBig):
        megabytes = (settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0) / 2**20
        return TooLarge(f"The body is larger than {megabytes:.0f} MB. Send smaller batches.")
    if isinstance(exc, DjangoValidationError):
        return exceptions.ValidationError(exc.message_dict if hasattr(exc, "error_dict") else exc.messages)
    if isinstance(exc, OperationalError | InterfaceError):  # no free connection in the pool, or the server is away
        return Unavailable()
    return None


def flatten(details: Any, path: tuple[str, ...] = (), item: int | None = None) -> Iterator[dict[str, Any]]:
    """Nested details of a ValidationError as flat ``{field, message, item?}`` rows, first to last.

    Places on the top level (a list, or numbers as keys) are a batch: they become ``item``. Deeper ones stay in the
    path.
    """
    if isinstance(details, Mapping):
        if set(details) == {"message", "code"} and isinstance(details["message"], str):
            row: dict[str, Any] = {"field": ".".join(path), "message": str(details["message"])}
            if item is not None:
                row["item"] = item
            yield row
            return
        for key, value in details.items():
            if isinstance(key, int) and not path and item is None:
                yield from flatten(value, path, key)
                continue
            yield from flatten(value, path if key == "non_field_errors" else (*path, str(key)), item)
    elif isinstance(details, list | tuple):
        leaves = all(isinstance(part, Mapping) and set(part) == {"message", "code"} for part in details)
        for index, part in enumerate(details):
            if leaves:
                yield from flatten(part, path, item)
            elif not path and item is None:
                yield from flatten(part, path, index)
            else:
                yield from flatten(part, (*path, str(index)), item)


def summary(errors: list[dict[str, Any]]) -> str:
    """One sentence: the first error with its place, and how many more there are."""
    if not errors:
        return DETAILS[422]
    first = errors[0]
    where = f"item {first['item']}: " if "item" in first else ""
    field = f"{first['field']}: " if first["field"] else ""
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}{field}{first['message']}{more}"


def speaks_openai(path: str) -> bool:
    """Whether clients of this address read errors in OpenAI's shape, as those of a chat do."""
    return path.startswith("/v1/") and not path.startswith("/v1/traces")


def _without_view(request: HttpRequest, status: int) -> JsonResponse:
    """What Django itself answers to a program, in the shape that its address has."""
    if not speaks_openai(request.path):
        return problem(request, status=status)
    code = "unknown_url" if status == HTTPStatus.NOT_FOUND else None
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return JsonResponse(openai_body(DETAILS.get(status, ""), kind, code), status=status)


def openai_body(said: str, kind: str, code: str | None) -> dict[str, Any]:
    """An error as clients of a chat read it."""
    return {"error": {"message": said, "type": kind, "param": None, "code": code}}


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    return _without_view(request, 404) if is_api_path(request.path) else error_page(request, 404)


def server_error(request: HttpRequest) -> HttpResponseBase:
    return _without_view(request, 500) if is_api_path(request.path) else error_page(request, 500)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api_path(request.path):
        too_large = isinstance(exception, RequestDataTooBig)
        return _without_view(request, 413 if too_large else 400)
    return error_page(request, 400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api_path(request.path):
        return _without_view(request, 403)
    return error_page(request, 403)

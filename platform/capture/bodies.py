"""The body of a request as JSON, whatever was sent."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pydantic_core
from django.http import HttpRequest

from assistants.errors import ApiError

MAX_BYTES = 8 * 1024 * 1024
MAX_ITEMS = 1000


def read_json(request: HttpRequest) -> Any:
    """Raises:
    assistants.errors.ApiError: 413 too large, 415 not JSON by its type, 422 not JSON.
    """
    kind = request.content_type or ""
    if kind and "json" not in kind:
        raise ApiError(415, detail="Send JSON: Content-Type: application/json.")
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BYTES:
        raise _too_large()
    body = request.body
    if len(body) > MAX_BYTES:
        raise _too_large()
    return parse(body)


def parse(body: bytes) -> Any:
    """Fast for what is well formed. Half a surrogate pair, which the fast parser refuses for the whole body, is let
    through by the slow one, so that it is the affair of one item."""
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        pass
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise ApiError(422, detail="The JSON is nested too deeply.") from None
    except UnicodeDecodeError:
        raise ApiError(422, detail="The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ApiError(422, detail=f"The body is not valid JSON: {error.msg} at {place}.") from None
    except ValueError:  # a number with thousands of digits, NaN
        raise ApiError(422, detail="The body is not valid JSON: a number cannot be read.") from None


def read_items(request: HttpRequest, name: str) -> list[Any]:
    """The items of a batch: a JSON array, or an object with the array under ``name``. Raises as `read_json`."""
    body = read_json(request)
    items = body.get(name) if isinstance(body, dict) and set(body) == {name} else body
    if not isinstance(items, list):
        raise ApiError(422, detail=f'Send a JSON array, or an object {{"{name}": […]}}.')
    if not items:
        raise ApiError(422, detail="The batch is empty.")
    if len(items) > MAX_ITEMS:
        raise ApiError(413, detail=f"A batch has at most {MAX_ITEMS} items; this one has {len(items)}.")
    return items


def _too_large() -> ApiError:
    return ApiError(413, detail=f"The body is larger than {MAX_BYTES // 2**20} MB. Send smaller batches.")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)

"""The body of a request as JSON or as lines of JSON, packed with gzip or not, whatever was sent."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pydantic_core
from django.conf import settings
from django.http import HttpRequest

from assistants.errors import ApiError, FieldError
from capture.quick import quick_turn, quick_turns

MAX_BYTES = 8 * 1024 * 1024
"""Of a body as it comes, and of it unpacked."""
MAX_ITEMS = 1000
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Batch:
    """The items of a batch. ``unreadable``: what is wrong, by the place of an item that is no JSON (there ``items`` has
    None). ``lines``: the line, from 1, on which each item stood; empty where the batch was an array."""

    items: Sequence[Any]
    lines: Sequence[int] = ()
    unreadable: dict[int, FieldError] = field(default_factory=dict)


def read_json(request: HttpRequest) -> Any:
    """Raises:
    assistants.errors.ApiError: 400 not gzip although it says so, 413 too large, 415 not JSON by its type or packed in
        another way, 422 not JSON.
    """
    return parse(_json_body(request))


def read_batch(request: HttpRequest, name: str) -> Batch:
    """A JSON array, an object with the array under ``name``, or lines of JSON. Raises as `read_json`."""
    if is_lines(request):
        return _read_lines(read_body(request))
    return batch_of(parse(_json_body(request)), name)


def read_turn(request: HttpRequest) -> Any:
    """As `read_json`; a turn that is like most is a `QuickTurn` already."""
    body = _json_body(request)
    quick = quick_turn(body)
    return parse(body) if quick is None else quick


def read_turns(request: HttpRequest) -> Batch:
    """As `read_batch`; turns that are all like most are `QuickTurn` already."""
    if is_lines(request):
        return _read_lines(read_body(request), _turn_of)
    body = _json_body(request)
    quick = quick_turns(body)
    return Batch(quick) if quick and len(quick) <= MAX_ITEMS else batch_of(parse(body), "turns")


def batch_of(body: Any, name: str) -> Batch:
    """As `read_batch`, of what has been read already."""
    items = body.get(name) if isinstance(body, dict) and set(body) == {name} else body
    if not isinstance(items, list):
        raise ApiError(422, detail=f'Send a JSON array, an object {{"{name}": […]}}, or lines of JSON.')
    if not items:
        raise ApiError(422, detail="The batch is empty.")
    if len(items) > MAX_ITEMS:
        raise _too_many(f"this one has {len(items)}")
    return Batch(items)


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


def read_body(request: HttpRequest, most: int = MAX_BYTES) -> bytes:
    """The unpacked body; no more of it than the limits is ever held. ``most``: bytes, as it comes and unpacked.

    Raises:
        assistants.errors.ApiError: 400 damaged, 413 too large, 415 packed in another way than gzip.
    """
    limit = min(most, settings.DATA_UPLOAD_MAX_MEMORY_SIZE or most)
    packing = request.headers.get("Content-Encoding", "").strip().lower()
    if packing not in ("", "identity", "gzip"):
        raise ApiError(415, detail="Send the body as it is, or with Content-Encoding: gzip.")
    if _announced(request) > limit:
        raise _too_large(limit)
    body = request.read(limit + 1)
    if len(body) > limit:
        raise _too_large(limit)
    return unpacked(body, most) if packing == "gzip" else body


def unpacked(body: bytes, most: int = MAX_BYTES) -> bytes:
    """Gzip allows several members, one behind the other. Raises as `read_body`."""
    found = bytearray()
    while body:
        member = zlib.decompressobj(wbits=31)
        try:
            found += member.decompress(body, most + 1 - len(found))
        except zlib.error:
            raise ApiError(400, detail="The body is not valid gzip.") from None
        if len(found) > most:
            raise _too_large(most)
        if not member.eof:
            raise ApiError(400, detail="The body is not valid gzip: it ends too early.")
        body = member.unused_data
    return bytes(found)


def _json_body(request: HttpRequest) -> bytes:
    kind = request.content_type or ""
    if is_lines(request):
        raise ApiError(415, detail="Lines of JSON are a batch: post them to turns/batch or feedback.")
    if kind and "json" not in kind:
        raise ApiError(415, detail="Send JSON: Content-Type: application/json.")
    return read_body(request)


def is_lines(request: HttpRequest) -> bool:
    """Whether the request says that its body is lines of JSON."""
    return (request.content_type or "").lower() in LINES


def _turn_of(line: bytes) -> Any:
    quick = quick_turn(line)
    return parse(line) if quick is None else quick


def _read_lines(body: bytes, read: Callable[[bytes], Any] = parse) -> Batch:
    """Blank lines count as lines, and as no items. ``read`` raises ApiError where a line is no JSON."""
    items: list[Any] = []
    lines: list[int] = []
    unreadable: dict[int, FieldError] = {}
    for number, line in enumerate(body.removeprefix(_BOM).split(b"\n"), start=1):
        if not line.strip():
            continue
        if len(items) == MAX_ITEMS:
            raise _too_many("this one has more")
        lines.append(number)
        try:
            items.append(read(line))
        except ApiError as error:
            unreadable[len(items)] = {"field": "", "message": str(error.detail).replace("The body is", "This line is")}
            items.append(None)
    if not items:
        raise ApiError(422, detail="The batch is empty.")
    return Batch(items, lines, unreadable)


def _announced(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _too_many(have: str) -> ApiError:
    return ApiError(413, detail=f"A batch has at most {MAX_ITEMS} items; {have}.")


def _too_large(limit: int) -> ApiError:
    return ApiError(413, detail=f"The body is larger than {limit / 2**20:g} MB. Send smaller batches.")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)

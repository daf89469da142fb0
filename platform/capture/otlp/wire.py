"""Bodies of OTLP requests and answers, in protobuf or JSON: an answer has the encoding of its request."""

from __future__ import annotations

import json
import zlib
from enum import Enum

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from assistants.errors import ApiError
from capture.bodies import MAX_BYTES

MAX_UNPACKED = MAX_BYTES
"""Of a body once it is unpacked: made of the smallest possible parts, that many bytes take 30 times the memory."""
_JSON, _PROTOBUF = "application/json", "application/x-protobuf"
_GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 3, 415: 3, 429: 8, 503: 14}


class Encoding(Enum):
    """How a body is written; the value is its content type."""

    PROTOBUF = _PROTOBUF
    JSON = _JSON


def encoding_of(request: HttpRequest) -> Encoding | None:
    """None: a content type that OTLP does not know."""
    try:
        return Encoding(request.content_type or "")
    except ValueError:
        return None


def read_body(request: HttpRequest) -> bytes:
    """The unpacked body; no more of it than the limits is ever held.

    Raises:
        assistants.errors.ApiError: 400 damaged, 413 too large, 415 packed in another way than gzip.
    """
    limit = min(MAX_BYTES, settings.DATA_UPLOAD_MAX_MEMORY_SIZE or MAX_BYTES)
    packing = request.headers.get("Content-Encoding", "").strip().lower()
    if packing not in ("", "identity", "gzip"):
        raise ApiError(415, detail="Send the body as it is, or with Content-Encoding: gzip.")
    if _announced(request) > limit:
        raise _too_large(limit)
    body = request.read(limit + 1)
    if len(body) > limit:
        raise _too_large(limit)
    return _unpacked(body) if packing == "gzip" else body


def _announced(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _unpacked(body: bytes) -> bytes:
    """Gzip allows several members, one behind the other."""
    found = bytearray()
    while body:
        member = zlib.decompressobj(wbits=31)
        try:
            found += member.decompress(body, MAX_UNPACKED + 1 - len(found))
        except zlib.error:
            raise ApiError(400, detail="The body is not valid gzip.") from None
        if len(found) > MAX_UNPACKED:
            raise _too_large(MAX_UNPACKED)
        if not member.eof:
            raise ApiError(400, detail="The body is not valid gzip: it ends too early.")
        body = member.unused_data
    return bytes(found)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, detail=f"The body is larger than {limit // 2**20} MB. Send smaller batches.")


def answer(encoding: Encoding, *, rejected: int, message: str) -> HttpResponse:
    """ExportTraceServiceResponse. ``message`` with nothing rejected is a warning; without either all was taken."""
    if encoding is Encoding.JSON:
        partial = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}}
        return HttpResponse(json.dumps(partial if rejected or message else {}), content_type=_JSON)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    if rejected or message:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    return HttpResponse(response.SerializeToString(), content_type=_PROTOBUF)


def refusal(encoding: Encoding | None, error: ApiError) -> HttpResponse:
    """An error as google.rpc.Status, in JSON where the request was not in protobuf."""
    code, message = _GRPC_CODES.get(error.status_code, 2), str(error.detail)
    if encoding is Encoding.PROTOBUF:
        content, kind = _status(code, message.encode()), _PROTOBUF
    else:
        content, kind = json.dumps({"code": code, "message": message}).encode(), _JSON
    return HttpResponse(content, status=error.status_code, content_type=kind, headers=error.headers)


def _status(code: int, message: bytes) -> bytes:
    """Two fields, written by hand: int32 code = 1, string message = 2. The package that holds the message's class is
    needed for nothing else."""
    return b"\x08" + varint(code) + b"\x12" + varint(len(message)) + message


def varint(number: int) -> bytes:
    """A number from 0 as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)

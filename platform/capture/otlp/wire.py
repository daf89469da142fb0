"""Bodies of OTLP requests and answers, in protobuf or JSON: an answer has the encoding of its request."""

from __future__ import annotations

import json
from enum import Enum

from django.http import HttpRequest, HttpResponse

from assistants.errors import ApiError
from capture.bodies import MAX_BYTES, read_body

__all__ = ["MAX_UNPACKED", "Encoding", "answer", "encoding_of", "read_body", "refusal", "varint"]

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

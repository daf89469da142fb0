"""From a body, in protobuf or JSON, to records of spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from assistants.errors import ApiError
from capture.bodies import parse
from capture.otlp.spans import Raw, Span, SpanRefused, record_of
from capture.otlp.wire import Encoding

MAX_SPANS = 10_000
"""Of one request."""
_MAX_DEPTH = 20


@dataclass
class Decoded:
    """``rejected``: {why: number of spans}."""

    spans: list[Span] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def decode(body: bytes, encoding: Encoding) -> Decoded:
    """Raises:
    assistants.errors.ApiError: 400 not such a message, 413 more than `MAX_SPANS`.
    """
    decoded = Decoded()
    raws = _from_protobuf(body) if encoding is Encoding.PROTOBUF else _from_json(body)
    for count, raw in enumerate(raws, start=1):
        if count > MAX_SPANS:
            raise _too_many()
        try:
            decoded.spans.append(record_of(raw))
        except SpanRefused as refused:
            decoded.rejected[refused.reason] += 1
    return decoded


def _too_many() -> ApiError:
    return ApiError(413, detail=f"A request has at most {MAX_SPANS:,} spans. Send smaller batches.")


# --- Protobuf -------------------------------------------------------------------------------------


def _from_protobuf(body: bytes) -> Iterator[Raw]:
    # Loaded when the first trace comes: most processes never need it.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    count_spans(body)
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise _not_protobuf() from None
    for resource_spans in request.resource_spans:
        resource = dict(_pairs(resource_spans.resource.attributes))
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Raw(
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    resource=resource,
                    attributes=_pairs(span.attributes),
                    events=((event.name, _pairs(event.attributes)) for event in span.events),
                )


def _pairs(attributes: Any) -> Iterator[tuple[str, Any]]:
    for pair in attributes:
        yield pair.key, _value(pair.value, 0)


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        return getattr(value, kind)
    if depth < _MAX_DEPTH and kind == "array_value":
        return [_value(part, depth + 1) for part in value.array_value.values]
    if depth < _MAX_DEPTH and kind == "kvlist_value":
        return {pair.key: _value(pair.value, depth + 1) for pair in value.kvlist_value.values}
    return None  # bytes, and what is newer than we are


def _not_protobuf() -> ApiError:
    return ApiError(400, detail="The body is not an ExportTraceServiceRequest in protobuf.")


def count_spans(body: bytes) -> int:
    """Spans of a request, counted in its bytes, so that one with too many is never unpacked into objects.

    Raises:
        assistants.errors.ApiError: 400 not protobuf, 413 more than `MAX_SPANS`, or that many other parts.
    """
    steps = count = 0
    waiting = [(0, len(body), 0)]  # start, end, level: request, resource, scope
    while waiting:
        at, end, level = waiting.pop()
        while at < end:
            steps += 1
            tag, at = _varint(body, at, end)
            number, kind = tag >> 3, tag & 7
            size = {1: 8, 5: 4}.get(kind, 0)
            if kind == 0:
                _, at = _varint(body, at, end)
            elif kind == 2:
                size, at = _varint(body, at, end)
            elif kind not in (1, 5):
                raise _not_protobuf()
            if at + size > end:
                raise _not_protobuf()
            if kind == 2 and number == (1, 2, 2)[level]:
                if level == 2:
                    count += 1
                else:
                    waiting.append((at, at + size, level + 1))
            if count > MAX_SPANS or steps > 10 * MAX_SPANS:
                raise _too_many()
            at += size
    return count


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    found = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        at += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, at
        shift += 7
    raise _not_protobuf()


# --- JSON -----------------------------------------------------------------------------------------


def _from_json(body: bytes) -> Iterator[Raw]:
    if body.count(b'"spanId"') > 2 * MAX_SPANS:  # links have one too
        raise _too_many()
    try:
        request = parse(body)
    except ApiError as error:
        raise ApiError(400, detail=str(error.detail)) from None
    if not isinstance(request, Mapping):
        raise ApiError(400, detail="The body is not an ExportTraceServiceRequest in JSON: it is not an object.")
    for resource_spans in _objects(request, "resourceSpans"):
        given = resource_spans.get("resource")
        resource = dict(_json_pairs(given)) if isinstance(given, Mapping) else {}
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            for span in _objects(scope_spans, "spans"):
                yield Raw(
                    trace=_json_id(span.get("traceId")),
                    span=_json_id(span.get("spanId")),
                    parent=_json_id(span.get("parentSpanId")),
                    start=_json_integer(span.get("startTimeUnixNano")) or 0,
                    end=_json_integer(span.get("endTimeUnixNano")) or 0,
                    resource=resource,
                    attributes=_json_pairs(span),
                    events=((event.get("name"), _json_pairs(event)) for event in _objects(span, "events")),
                )


def _objects(holder: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Raises:
    assistants.errors.ApiError: 400, the field is no list of objects.
    """
    found = holder.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(part, Mapping) for part in found):
        raise ApiError(400, detail=f"{name} must be an array of objects.")
    return found


def _json_id(given: Any) -> str:
    return given.lower() if isinstance(given, str) else ""


def _json_integer(given: Any) -> int | None:
    """64-bit numbers are texts in protobuf's JSON; numbers are taken too."""
    if isinstance(given, str) and len(given) <= 20 and given.removeprefix("-").isdecimal() and given.isascii():
        given = int(given)
    fits = isinstance(given, int) and not isinstance(given, bool) and abs(given) < 2**64
    return given if fits else None


def _json_pairs(holder: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    for pair in _objects(holder, "attributes"):
        yield pair.get("key"), _json_value(pair.get("value"), 0)


def _json_value(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        return None
    for name, kind in (("stringValue", str), ("boolValue", bool)):
        if isinstance(value.get(name), kind):
            return value[name]
    if "intValue" in value:
        return _json_integer(value["intValue"])
    if "doubleValue" in value:
        given = value["doubleValue"]
        return given if isinstance(given, int | float) and not isinstance(given, bool) else None
    for name in ("arrayValue", "kvlistValue"):
        inner = value.get(name)
        if isinstance(inner, Mapping):
            parts = _objects(inner, "values")
            if name == "arrayValue":
                return [_json_value(part, depth + 1) for part in parts]
            return {str(part.get("key")): _json_value(part.get("value"), depth + 1) for part in parts}
    return None

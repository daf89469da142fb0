"""One span as a plain record, with only the attributes that a turn is made of.

What a web framework or a database client writes into its spans (addresses, statements, headers) is dropped before
anything is stored; such spans are kept as places in the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

Span = dict[str, Any]
"""{"trace", "id", "parent", "start", "end", "service", "version", "attributes": {name: value}, "events": [{"name",
"attributes"}]}: ids in hex, times in ISO 8601. What is missing or empty is left out."""

MAX_ATTRIBUTES = 4000
"""Of one span, its events included, that are of use; fifty passages with metadata are 200."""
_MAX_EVENTS = 500
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_KEPT = (
    "openinference.", "input.", "output.", "llm.", "retrieval.", "reranker.", "session.", "user.", "metadata", "tag.",
    "annotations", "evaluations", "trace.annotations", "trace.evaluations", "gen_ai.",
)  # fmt: skip
_NOT_KEPT = ("llm.invocation_parameters", "llm.tools", "gen_ai.tool.definitions")
# Of the events of messages, whose attributes have no prefix.
_PLAIN_NAMES = {"role", "content", "message", "index"}
BAD_IDS = "without a valid trace id and span id"
TOO_MANY_ATTRIBUTES = f"with more than {MAX_ATTRIBUTES:,} attributes"


class SpanRefused(Exception):
    """The span cannot be taken. ``reason`` is one of few phrases that hold nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Raw:
    """A span of either encoding. ``attributes`` and those of events: pairs that are read only as far as they count."""

    trace: str
    span: str
    parent: str
    start: int
    end: int
    resource: Mapping[str, Any]
    attributes: Iterable[tuple[Any, Any]]
    events: Iterable[tuple[Any, Iterable[tuple[Any, Any]]]]


def record_of(raw: Raw) -> Span:
    """Raises:
    SpanRefused: bad ids, or too many attributes.
    """
    if not (_is_id(raw.trace, 32) and _is_id(raw.span, 16)):
        raise SpanRefused(BAD_IDS)
    attributes = _useful(raw.attributes, plain=False)
    events: list[Span] = []
    count = len(attributes)
    for place, (name, given) in enumerate(raw.events):
        if place >= _MAX_EVENTS or count > MAX_ATTRIBUTES:
            break
        if isinstance(name, str) and name.startswith("gen_ai."):
            useful = _useful(given, plain=True)
            count += len(useful)
            events.append({"name": name[:100], "attributes": useful})
    if count > MAX_ATTRIBUTES:
        raise SpanRefused(TOO_MANY_ATTRIBUTES)
    span = {
        "trace": raw.trace,
        "id": raw.span,
        "parent": raw.parent if _is_id(raw.parent, 16) else "",
        "start": _moment(raw.start),
        "end": _moment(raw.end),
        "service": _service(raw.resource.get("service.name")),
        "version": _service(raw.resource.get("service.version")),
        "attributes": attributes,
        "events": events,
    }
    return {name: value for name, value in span.items() if value}


def _is_id(text: str, digits: int) -> bool:
    """All zeros mean none."""
    return len(text) == digits and set(text) <= set("0123456789abcdef") and set(text) != {"0"}


def _useful(pairs: Iterable[tuple[Any, Any]], *, plain: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str) or value is None or len(found) > MAX_ATTRIBUTES:
            continue
        if (name.startswith(_KEPT) and not name.startswith(_NOT_KEPT)) or (plain and name in _PLAIN_NAMES):
            found[name[:300]] = value
    return found


def _service(given: Any) -> str:
    """Unless it is the name that exporters make up."""
    known = isinstance(given, str) and not given.startswith("unknown_service")
    return given[:200] if known else ""


def _moment(nanoseconds: int) -> str:
    """ISO 8601; empty for a clock that is set to another age."""
    try:
        found = datetime.fromtimestamp(nanoseconds // 1000 / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return found.isoformat() if _EARLIEST <= found <= timezone.now() + timedelta(days=1) else ""

"""Values as exports write them, and what fits into a payload. Everything here takes anything and never raises."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from assistants.vault import keyed_hash
from capture.payloads import MAX_INTEGER, MAX_METADATA, clean_text

MAX_LITERAL = 4 * 1024 * 1024
"""Characters of a cell that is read as JSON."""
MAX_PYTHON = 200_000
"""Characters of one that is read as a Python literal, which takes a second and hundreds of bytes for each."""
_MAX_DEPTH = 60
_BAD_KEY = re.compile(r"[^\w.:/-]")
_BAD_NAME = re.compile(r"[^\w.:/+~,=()\- ]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_EARLIEST_SECONDS = 10**11  # larger numbers of time are milliseconds, then microseconds, then nanoseconds


def is_missing(value: Any) -> bool:
    """None, an empty text, NaN: how tables say that there is nothing."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def first(record: Mapping[str, Any], *names: str) -> Any:
    """The first of the fields that is there and not missing."""
    return next((record[name] for name in names if not is_missing(record.get(name))), None)


def text(value: Any) -> str:
    """A text without spaces around it; numbers are written out; anything else is empty."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or is_missing(value):
        return ""
    try:
        return str(int(value)) if float(value).is_integer() else str(value)
    except (ValueError, OverflowError):  # infinite, or thousands of digits
        return ""


def number(value: Any) -> float | None:
    """A finite number, also one written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A count from 0 to 2³¹ − 1."""
    found = number(value)
    return int(found) if found is not None and 0 <= found <= MAX_INTEGER else None


def moment(value: Any) -> str | None:
    """A time as ISO 8601 in UTC: from ISO 8601 (without zone: UTC), or a number since 1970 in s, ms, µs or ns."""
    try:
        found = _moment(value)
    except (ValueError, OverflowError, OSError):
        return None
    return found.isoformat() if found else None


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        seconds = number(value)
        value = datetime.fromisoformat(value.strip().removesuffix(" UTC")) if seconds is None else seconds
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    seconds = number(value)
    if seconds is None:
        return None
    while abs(seconds) >= _EARLIEST_SECONDS:
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC)


def milliseconds(start: Any, end: Any) -> float | None:
    """Between two times as `moment` takes them; None when one is missing or they run backwards."""
    begin, finish = moment(start), moment(end)
    if begin is None or finish is None:
        return None
    found = (datetime.fromisoformat(finish) - datetime.fromisoformat(begin)).total_seconds() * 1000
    return round(found, 3) if 0 <= found <= MAX_INTEGER else None


def structure(value: Any) -> Any:
    """A text that holds a JSON or Python list or object, as that; everything else as it is.

    Tables that were written by pandas hold lists as Python writes them, with single quotes.
    """
    if not isinstance(value, str) or len(value) > MAX_LITERAL:
        return value
    stripped = value.strip()
    if not stripped or stripped[0] not in "[{":
        return value
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        found = _python_literal(stripped) if len(stripped) <= MAX_PYTHON else None
    return value if found is None or is_too_deep(found) else found


def _python_literal(written: str) -> Any:
    try:
        with warnings.catch_warnings():  # Python warns of odd escapes, which are the log's own
            warnings.simplefilter("ignore")
            return ast.literal_eval(_WithoutNan().visit(ast.parse(written, mode="eval")))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


class _WithoutNan(ast.NodeTransformer):
    """Python writes a missing number as the name ``nan``, which is no literal."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(None) if node.id in ("nan", "inf", "null") else node


def content_id(prefix: str, *parts: Any) -> str:
    """A client id for a record that has none: the same for the same content, and keyed, since short texts in an open
    hash can be guessed."""
    content = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return f"{prefix}-{keyed_hash('import', prefix, content).hex()[:32]}"


def fit_id(given: Any, *, prefix: str, limit: int = 200) -> str:
    """The id itself where it may be one; a hash of it where it is too long or holds control characters."""
    found = text(given)
    if not found or (len(found) <= limit and not _CONTROL.search(found)):
        return found
    return content_id(prefix, found)


def fit_name(given: Any, limit: int = 200) -> str:
    """A model's name in the characters that names may have."""
    return _BAD_NAME.sub("_", text(given))[:limit]


def fit_tags(given: Any, notes: list[str]) -> list[str]:
    """At most 20 tags of 60 characters. A text is one tag, or several when it holds a JSON list."""
    given = structure(given)
    values: Iterable[Any] = given if isinstance(given, list | tuple) else [given]
    tags = list(dict.fromkeys(tag for tag in map(text, values) if tag))
    if len(tags) > 20 or any(len(tag) > 60 for tag in tags):
        notes.append("tags after the 20th, and what is over 60 characters of one, were left out")
    return list(dict.fromkeys(tag[:60] for tag in tags[:20]))


def fit_metadata(given: Any, notes: list[str]) -> dict[str, Any]:
    """Metadata within the limits of the log API: keys made plain, deep parts as JSON text, the largest left out."""
    given = structure(given)
    if not isinstance(given, Mapping):
        return {}
    fitted: dict[str, Any] = _fit(given, 0)
    sizes = {key: len(json.dumps({key: clean_text(value)}, ensure_ascii=False)) + 2 for key, value in fitted.items()}
    if sum(sizes.values()) > MAX_METADATA - 1000:
        notes.append("the largest parts of metadata over 16,000 characters were left out")
    while sum(sizes.values()) > MAX_METADATA - 1000:
        largest = max(sizes, key=lambda key: sizes[key])
        del sizes[largest], fitted[largest]
    return fitted


def _fit(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        if depth >= 5:
            return _as_text(value)
        pairs = ((_BAD_KEY.sub("_", str(key))[:64], inner) for key, inner in value.items())
        return {key: _fit(inner, depth + 1) for key, inner in pairs if key}
    if isinstance(value, list | tuple):
        return [_fit(inner, depth + 1) for inner in value] if depth < 5 else _as_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) >= 2**63:
        return None
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int) else _as_text(value)


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return ""


def depth_of(value: Any) -> int:
    """How deep lists and objects are nested, found without recursion; stops a little after 60."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        inner, depth = waiting.pop()
        if isinstance(inner, Mapping | list | tuple):
            deepest = max(deepest, depth)
            if deepest > _MAX_DEPTH:
                return deepest
            waiting += [(part, depth + 1) for part in (inner.values() if isinstance(inner, Mapping) else inner)]
    return deepest


def is_too_deep(value: Any) -> bool:
    return depth_of(value) > _MAX_DEPTH

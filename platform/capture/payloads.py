"""What the log API takes: the fields of a turn and of feedback, with their limits.

Free text is taken as it comes: a NUL byte or half of a surrogate pair (both cannot be stored, both come out of PDF
extraction) becomes U+FFFD, since losing a turn over a stray byte would be worse than a mark in its place. Ids must be
exact, so there the same is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from django.utils import timezone
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    model_validator,
)

from assistants.errors import FieldError
from capture.late import METRIC_PATTERN

MAX_QUESTION = 20_000
MAX_TEXT = 100_000
MAX_CONTEXTS = 50
MAX_HISTORY = 100
MAX_METADATA = 16_000
MAX_TAGS = 20
MAX_INTEGER = 2**31 - 1
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_KEY = re.compile(r"[\w.:/\[\]-]{1,64}")
"""As of names: square brackets, so that what was exported, with its placeholders, is taken again."""


def clean_text(value: Any) -> Any:
    """Text that PostgreSQL and JSON can hold; anything but a string is left to the validation."""
    if not isinstance(value, str) or _is_storable(value):
        return value
    return _UNSTORABLE.sub("\ufffd", value)


def _is_storable(value: str) -> bool:
    """Nearly every text is, and the search with a set of characters costs more than all other validation together."""
    if "\x00" in value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _exact(value: Any) -> Any:
    if isinstance(value, str) and _CONTROL.search(value):
        raise ValueError("must not hold control characters")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _value(value: Any) -> Any:
    """Before the choice between the two types, whose messages would name them instead of the field."""
    if value is None or isinstance(value, bool):
        return value
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("must be a number, or true or false")
    return found


def credible_moment(value: datetime) -> datetime:
    """In UTC. Raises ValueError: not between the year 2000 and tomorrow."""
    try:
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # a zone that leads out of the calendar
        raise ValueError("must lie between the year 2000 and tomorrow") from None
    if not _EARLIEST <= value <= timezone.now() + timedelta(days=1):
        raise ValueError("must lie between the year 2000 and tomorrow")
    return value


def checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """With text that can be stored. Raises ValueError: too large or too deep, or a key or a number is none."""
    cleaned = _clean_json(value, depth=0)
    if len(json.dumps(cleaned, ensure_ascii=False)) > MAX_METADATA:
        raise ValueError(f"is larger than {MAX_METADATA} characters")
    return cleaned


def _clean_json(value: Any, *, depth: int) -> Any:
    if depth > 6:
        raise ValueError("is nested more than 6 deep")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise ValueError("has a key that is not 1 to 64 letters, digits or . : / _ - [ ]")
        return {key: _clean_json(inner, depth=depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean_json(inner, depth=depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("has a number that is not finite")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("has a number with more than 64 bits")
    return clean_text(value)


def _text(maximum: int, minimum: int = 0) -> Any:
    # In this order the core checks the length itself; the other way round two functions in Python would.
    return Annotated[str, StringConstraints(min_length=minimum, max_length=maximum), BeforeValidator(clean_text)]


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200), BeforeValidator(_exact)]
Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[\w.:/+~,=()\[\]\- ]*$")]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Moment = Annotated[datetime, AfterValidator(credible_moment)]
Metadata = Annotated[dict[str, Any], AfterValidator(checked_metadata)]
Value = Annotated[bool | float | None, BeforeValidator(_value)]
Outcome = Literal["", "resolved", "unresolved", "escalated", "abandoned"]
Milliseconds = Annotated[FiniteFloat, Field(ge=0, le=MAX_INTEGER)]


class _Item(BaseModel):
    # Values never go into an error message: it is answered, and perhaps logged, in clear.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def canonical(self) -> bytes:
        """The same bytes for the same content, however it was spelled; fields left at their default do not count."""
        return self.__pydantic_serializer__.to_json(self, exclude_defaults=True)  # bytes, where the method makes a str


class HistoryMessage(_Item):
    """One earlier message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: _text(MAX_QUESTION)  # type: ignore[valid-type]


class Context(_Item):
    """One retrieved passage. ``chunk`` and ``evidence`` ([[place, sentence, similarity]]) come from our own chat."""

    text: Annotated[_text(MAX_TEXT), AfterValidator(_not_blank)]  # type: ignore[valid-type]
    title: _text(500) = ""  # type: ignore[valid-type]
    source: _text(500) = ""  # type: ignore[valid-type]
    rank: Annotated[int, Field(ge=1, le=1000)] | None = None
    score: FiniteFloat | None = None
    metadata: Metadata = Field(default_factory=dict)
    chunk: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    evidence: Annotated[list[tuple[Count, Count, FiniteFloat]], Field(max_length=40, default_factory=list)]


class TurnItem(_Item):
    """One question with what was retrieved and answered. Contexts are in rank order unless they carry ranks."""

    id: Identifier
    conversation: Identifier | None = None
    question: Annotated[_text(MAX_QUESTION), AfterValidator(_not_blank)]  # type: ignore[valid-type]
    history: Annotated[list[HistoryMessage], Field(max_length=MAX_HISTORY, default_factory=list)]
    contexts: Annotated[list[Context], Field(max_length=MAX_CONTEXTS, default_factory=list)]
    response: Annotated[_text(MAX_TEXT), AfterValidator(_not_blank)]  # type: ignore[valid-type]
    model: Name = ""
    adapter: Annotated[Name, StringConstraints(max_length=120)] = ""
    latency_ms: Milliseconds | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    time: Moment | None = None
    tags: Annotated[list[_text(60, 1)], Field(max_length=MAX_TAGS, default_factory=list)]  # type: ignore[valid-type]
    metadata: Metadata = Field(default_factory=dict)
    outcome: Outcome = ""
    client: Annotated[Name, StringConstraints(max_length=120)] = ""
    # Provenance that our own chat knows.
    completion: _text(MAX_TEXT) = ""  # type: ignore[valid-type]
    citations: Annotated[list[tuple[Count, Count]], Field(max_length=200)] | None = None
    prompt_digest: Annotated[Name, StringConstraints(max_length=64)] = ""
    retrieval_config: Annotated[Name, StringConstraints(max_length=64)] = ""
    withheld: bool = False

    @model_validator(mode="after")
    def _ranks(self) -> TurnItem:
        ranks = [context.rank for context in self.contexts]
        given = [rank for rank in ranks if rank is not None]
        if given and len(given) < len(ranks):
            raise ValueError("contexts: give every context a rank, or none")
        if len(set(given)) < len(given):
            raise ValueError("contexts: two contexts have the same rank")
        return self

    def ranked_contexts(self) -> list[tuple[int, Context]]:
        """Contexts with their rank (1 is first), in rank order."""
        return sorted(
            ((context.rank or place, context) for place, context in enumerate(self.contexts, start=1)),
            key=lambda pair: pair[0],
        )


class FeedbackItem(_Item):
    """What a user thought of a turn. ``turn``: the client's id of it, or ours."""

    turn: Identifier
    id: Annotated[Identifier, StringConstraints(max_length=120)] | None = None
    kind: Literal["thumb", "rating", "correction", "comment", "escalation", "metric"]
    metric: Annotated[str, StringConstraints(pattern=rf"^{METRIC_PATTERN}$")] | None = None
    value: Value = None
    text: _text(MAX_QUESTION) = ""  # type: ignore[valid-type]
    time: Moment | None = None

    @model_validator(mode="after")
    def _fits(self) -> FeedbackItem:
        if (self.kind == "metric") != (self.metric is not None):
            raise ValueError("metric: the name of the metric goes with the kind metric, and with no other")
        if self.kind == "metric":
            if self.value is None:
                raise ValueError("value: a metric is true, false or a number")
            return self
        if isinstance(self.value, bool):
            raise ValueError("value: only a metric is true or false")
        if self.kind == "thumb" and self.value not in (1, -1):
            raise ValueError("value: a thumb is 1 or -1")
        if self.kind == "rating" and (self.value is None or not 1 <= self.value <= 5):
            raise ValueError("value: a rating is 1 to 5")
        if self.kind in ("correction", "comment") and not self.text.strip():
            raise ValueError(f"text: a {self.kind} needs a text")
        return self


class UpdateItem(_Item):
    """What became known of a turn after it was posted. Fields that are left out stay as they are."""

    turn: Identifier
    update_id: Annotated[Identifier, StringConstraints(max_length=120)] | None = None
    update_time: Moment | None = None
    outcome: Outcome | None = None
    latency_ms: Milliseconds | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    tags: Annotated[list[_text(60, 1)], Field(max_length=MAX_TAGS, default_factory=list)]  # type: ignore[valid-type]
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _only_what_may_change(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and (fixed := [name for name in _FIXED if name in given]):
            raise ValueError(f"{fixed[0]}: never changes once it is posted; post a turn under an id of its own")
        return given

    @model_validator(mode="after")
    def _fits(self) -> UpdateItem:
        if all(getattr(self, name) in (None, [], {}) for name in CHANGEABLE):
            raise ValueError(f"there is nothing to change; send one of {', '.join(CHANGEABLE)}")
        if self.metadata.keys() & {"user", "user_key"}:
            raise ValueError("metadata: who asked is said with the turn, whose texts are masked with it")
        return self


CHANGEABLE = ("outcome", "latency_ms", "prompt_tokens", "completion_tokens", "tags", "metadata")
_FIXED = tuple(name for name in TurnItem.model_fields if name not in CHANGEABLE)


def field_errors(error: ValidationError) -> list[FieldError]:
    """What is wrong, without any of the values."""
    found: list[FieldError] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:20]:
        path = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        name, colon, rest = message.partition(": ")
        if not path and colon and name.isidentifier():  # a rule over several fields names its own
            path, message = name, rest
        if problem["type"] == "extra_forbidden":
            path, message = _known_part(problem["loc"]), "There is no such field here"
        found.append({"field": path, "message": message})
    return found


def _known_part(location: tuple[int | str, ...]) -> str:
    """An unknown field's name is the caller's text: it is echoed only as far as it is short and plain."""
    return ".".join(str(part) if isinstance(part, int) or _KEY.fullmatch(part) else "?" for part in location)

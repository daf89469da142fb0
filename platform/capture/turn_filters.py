"""Which turns: the filters that the list, the search, the export and `export_turns` share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive, make_aware

from assistants.errors import ApiError, FieldError
from capture.models import TurnQuerySet
from capture.vault import stored_id

FEEDBACK = ("up", "down", "any", "none")
MAX_VALUE = 500
MAX_TAGS = 20

Query = Mapping[str, Sequence[str]]
"""Parameters as an address carries them: each name with all its values."""


@dataclass(frozen=True)
class TurnFilters:
    """Every filter that was given; all of them must hold."""

    adapter: str | None = None
    conversation: str | None = None
    declined: bool | None = None
    feedback: str | None = None
    model: str | None = None
    q: str = ""
    since: datetime | None = None
    tag: tuple[str, ...] = ()
    until: datetime | None = None

    def apply(self, turns: TurnQuerySet) -> TurnQuerySet:
        turns = turns.tagged(self.tag, adapter=self.adapter, model=self.model)
        if self.conversation is not None:
            turns = turns.filter(conversation__external_id=stored_id(self.conversation))
        if self.declined is not None:
            turns = turns.filter(declined=self.declined)
        if self.feedback is not None:
            turns = turns.with_feedback(self.feedback)
        if self.since is not None:
            turns = turns.filter(asked_at__gte=self.since)
        if self.until is not None:
            turns = turns.filter(asked_at__lt=self.until)
        return turns.matching(self.q) if self.q else turns

    @property
    def may_be_rare(self) -> bool:
        """Whether what matches may lie far apart in the order of time, without the planner knowing: it multiplies how
        frequent each is, and that an adapter never met a tag is not in its statistics."""
        frequent = sum(value is not None for value in (self.adapter, self.declined, self.model))
        return self.conversation is None and (bool(self.q or self.tag or self.feedback) or frequent > 1)

    def for_audit(self) -> dict[str, Any]:
        """What was asked for, without free text: a search may be for somebody's name, and the audit trail stays."""
        told: dict[str, Any] = {}
        for name in FILTERS:
            value = getattr(self, name)
            if value in (None, "", ()):
                continue
            if name in ("q", "conversation"):
                told[name] = f"given, {len(value)} characters"
            else:
                told[name] = value.isoformat() if isinstance(value, datetime) else value
        return told


FILTERS = tuple(field.name for field in fields(TurnFilters))


def read_filters(query: Query, *, also: Iterable[str] = ()) -> TurnFilters:
    """The filters of a request. ``also``: parameters that are somebody else's to read.

    Raises:
        assistants.errors.ApiError: 422, a parameter is unknown, given twice, or has a bad value.
    """
    allowed = sorted((*FILTERS, *also))
    for name, values in query.items():
        if name not in allowed:
            raise bad(
                name[:64] if name.isprintable() else "?",
                f"There is no such parameter; choose from {', '.join(allowed)}",
            )
        if len(values) > 1 and name != "tag":
            raise bad(name, "is given more than once")
    tags = query.get("tag", ())
    if len(tags) > MAX_TAGS:
        raise bad("tag", f"is given more than {MAX_TAGS} times")
    return TurnFilters(
        adapter=_plain(query, "adapter"),
        conversation=_plain(query, "conversation"),
        declined=_truth(one(query, "declined")),
        feedback=_feedback(one(query, "feedback")),
        model=_plain(query, "model"),
        q=_plain(query, "q") or "",
        since=_moment("since", one(query, "since")),
        tag=tuple(plain("tag", tag) for tag in tags),
        until=_moment("until", one(query, "until")),
    )


def one(query: Query, name: str) -> str | None:
    values = query.get(name)
    return values[-1] if values else None


def plain(name: str, value: str, maximum: int = MAX_VALUE) -> str:
    """Text that PostgreSQL takes, of a bounded length.

    Raises:
        assistants.errors.ApiError: 422, it is neither.
    """
    if "\x00" in value or len(value) > maximum or any("\ud800" <= character <= "\udfff" for character in value):
        raise bad(name, f"must be at most {maximum} characters, without NUL")
    return value


def whole_number(name: str, value: str | None, *, default: int | None, maximum: int) -> int | None:
    """Raises:
    assistants.errors.ApiError: 422, not a whole number from 1 to ``maximum``.
    """
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 12 and 1 <= int(value) <= maximum):
        raise bad(name, f"must be a whole number from 1 to {maximum}")
    return int(value)


def bad(field: str, message: str) -> ApiError:
    error: FieldError = {"field": field, "message": message}
    return ApiError(422, detail=f"{field}: {message}", errors=[error])


def _plain(query: Query, name: str) -> str | None:
    value = one(query, name)
    return None if value is None else plain(name, value)


def _truth(value: str | None) -> bool | None:
    if value not in (None, "true", "false"):
        raise bad("declined", "must be true or false")
    return None if value is None else value == "true"


def _feedback(value: str | None) -> str | None:
    if value is not None and value not in FEEDBACK:
        raise bad("feedback", f"must be one of {', '.join(FEEDBACK)}")
    return value


def _moment(name: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        found = parse_datetime(value)
        if found is None and (day := parse_date(value)) is not None:
            found = datetime(day.year, day.month, day.day)
        if found is not None:
            return make_aware(found) if is_naive(found) else found
    except (ValueError, OverflowError):
        pass
    raise bad(name, "must be a date or a time in ISO 8601, such as 2026-01-31T12:00:00Z")

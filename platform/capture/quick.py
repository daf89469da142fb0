"""Turns as nearly everybody posts them, checked in one pass from bytes to bytes.

`capture.payloads` says what a turn may be, and in which words one is refused. That makes a tree of the JSON, then an
object of the tree, with functions in Python at every text: most of what a batch cost the web process. Here a smaller
set is taken, for which the answer is certainly yes; whatever is not in it (an error, a stray byte, a number spelled as
text, a field that only our own chat sends) is nobody's affair here and goes the long way, whole.

What is taken must have the same canonical bytes as `TurnItem` gives it, since a repeat may come by the other way, and
is told from a conflict by them. Hence some bounds that look odd: they leave out what the two libraries write
differently. tests/capture/test_quick.py compares them on whatever hypothesis finds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from capture.payloads import (
    MAX_CONTEXTS,
    MAX_HISTORY,
    MAX_INTEGER,
    MAX_QUESTION,
    MAX_TAGS,
    MAX_TEXT,
    checked_metadata,
    credible_moment,
)

_WRITTEN_ALIKE = 1e15
"""From 10¹⁶ on one library writes 1e16 and the other 1e+16."""
_NUL = b"\\u0000"
_NAME = re.compile(r"[\w.:/+~,=()\[\]\- ]*", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)

_Identifier = Annotated[str, Meta(min_length=1, max_length=200)]
_Question = Annotated[str, Meta(min_length=1, max_length=MAX_QUESTION)]
_Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
_Title = Annotated[str, Meta(max_length=500)]
_Digest = Annotated[str, Meta(max_length=64)]
_Short = Annotated[str, Meta(max_length=120)]
_Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


class _Strict(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """No cycle comes out of JSON, so the collector need not look at them."""


class _Message(_Strict):
    role: Literal["user", "assistant", "system"]
    content: Annotated[str, Meta(max_length=MAX_QUESTION)]


class _Context(_Strict):
    text: _Text
    title: _Title = ""
    source: _Title = ""
    rank: Annotated[int, Meta(ge=1, le=1000)] | None = None
    score: Annotated[float, Meta(ge=-_WRITTEN_ALIKE, le=_WRITTEN_ALIKE)] | None = None
    metadata: dict[str, Any] = {}


class QuickTurn(_Strict, kw_only=True):
    """As `capture.payloads.TurnItem`, with its fields in their order: so they are written. ``time`` is in UTC."""

    id: _Identifier
    conversation: _Identifier | None = None
    question: _Question
    history: Annotated[list[_Message], Meta(max_length=MAX_HISTORY)] = []
    contexts: Annotated[list[_Context], Meta(max_length=MAX_CONTEXTS)] = []
    response: _Text
    model: Annotated[str, Meta(max_length=200)] = ""
    adapter: _Short = ""
    latency_ms: Annotated[float, Meta(ge=0, le=MAX_INTEGER)] | None = None
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    time: str | None = None
    tags: Annotated[list[Annotated[str, Meta(min_length=1, max_length=60)]], Meta(max_length=MAX_TAGS)] = []
    metadata: dict[str, Any] = {}
    outcome: Literal["", "resolved", "unresolved", "escalated", "abandoned"] = ""
    client: _Short = ""
    prompt_digest: _Digest = ""
    retrieval_config: _Digest = ""

    def canonical(self) -> bytes:
        """As `TurnItem.canonical`."""
        return _ENCODER.encode(self)


class _Wrapped(Struct, forbid_unknown_fields=True):
    turns: list[QuickTurn]


_ENCODER = msgspec.json.Encoder()
_ONE = msgspec.json.Decoder(QuickTurn)
_MANY = msgspec.json.Decoder(list[QuickTurn] | _Wrapped)
_ERRORS = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""Of ValueError there is UnicodeDecodeError too."""


def quick_turn(body: bytes) -> QuickTurn | None:
    """The turn that ``body`` is, or None: to be read the long way."""
    if _has_nul(body):
        return None
    try:
        turn = _ONE.decode(body)
        _check(turn)
    except _ERRORS:
        return None
    return turn


def quick_turns(body: bytes) -> Sequence[QuickTurn] | None:
    """The turns of a batch, an array or an object with it under ``turns``; None: to be read the long way, all of it."""
    if _has_nul(body):
        return None
    try:
        found = _MANY.decode(body)
        turns = found if isinstance(found, list) else found.turns
        for turn in turns:
            _check(turn)
    except _ERRORS:
        return None
    return turns


def _has_nul(body: bytes) -> bool:
    # One byte is looked for ten times as fast as six, and most bodies do without it.
    return b"\\" in body and _NUL in body


def _check(turn: QuickTurn) -> None:
    """What types do not say. Raises ValueError, OverflowError: not one of ours."""
    plain = turn.id.isprintable() and (turn.conversation is None or turn.conversation.isprintable())
    if not plain or turn.question.isspace() or turn.response.isspace():
        raise ValueError
    if turn.contexts:
        _check_contexts(turn.contexts)
    names = turn.model + turn.adapter + turn.client + turn.prompt_digest + turn.retrieval_config
    if names and not _NAME.fullmatch(names):
        raise ValueError
    if turn.metadata:
        turn.metadata = _metadata(turn.metadata)
    if turn.time is not None:
        if not _TIME.fullmatch(turn.time):
            raise ValueError
        turn.time = credible_moment(datetime.fromisoformat(turn.time)).isoformat().replace("+00:00", "Z")


def _check_contexts(contexts: Sequence[_Context]) -> None:
    for context in contexts:
        if context.text.isspace():
            raise ValueError
        if context.metadata:
            context.metadata = _metadata(context.metadata)
    ranks = {context.rank for context in contexts}
    if ranks != {None} and (None in ranks or len(ranks) < len(contexts)):
        raise ValueError


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    found = checked_metadata(value)
    if not _is_written_alike(found):
        raise ValueError
    return found


def _is_written_alike(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_written_alike, value.values()))
    if isinstance(value, list):
        return all(map(_is_written_alike, value))
    return not isinstance(value, float) or abs(value) <= _WRITTEN_ALIKE

"""Scrubbed feedback and updates are written to the turns that they belong to; within `capture.storing.write`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from assistants.models import Assistant
from capture.late import SAME
from capture.masking import MaskedUpdate
from capture.models import Conversation, Feedback, Quarantine, Turn, TurnUpdate
from capture.payloads import MAX_METADATA, MAX_TAGS, FeedbackItem, UpdateItem
from capture.uncertain import Noted, Occurrence, note

_MEASURES = ("outcome", "latency_ms", "prompt_tokens", "completion_tokens")


class TurnMissing(Exception):
    """Feedback on a turn, or an update of one, that is not stored: held, or removed."""


class UpdateRefused(Exception):
    """What an update adds does not fit into the turn. The message says why, without any of the text."""


@dataclass(frozen=True)
class ReadyFeedback:
    """``entities``: the table of the conversation after this item."""

    row: Quarantine
    item: FeedbackItem
    text: str
    entities: dict[str, Any]
    received_at: datetime
    occurrences: Sequence[Occurrence] = ()
    known: frozenset[str] = frozenset()
    policy_digest: str = ""


@dataclass(frozen=True)
class ReadyUpdate:
    """``masked``: its tags and metadata."""

    row: Quarantine
    item: UpdateItem
    masked: MaskedUpdate
    entities: dict[str, Any]
    api_key_id: int | None
    received_at: datetime
    policy_digest: str = ""

    @property
    def known_at(self) -> datetime:
        """A clock that goes ahead must not keep out what others say afterwards."""
        return min(self.item.update_time or self.received_at, self.received_at)


class Learned(NamedTuple):
    """The table of masks of a conversation after one item. ``place``: of the item in the line."""

    place: int
    conversation: int
    entities: dict[str, Any]


def write_feedback(assistant: Assistant, feedback: Sequence[ReadyFeedback]) -> list[Learned]:
    """Raises:
    TurnMissing: one of the turns is not stored.
    """
    names = {ready.item.turn for ready in feedback}
    rows = Turn.objects.of(assistant).filter(client_id__in=names).select_related("conversation")
    turns = {turn.client_id: turn for turn in rows}
    if names - turns.keys():
        raise TurnMissing
    stored = Feedback.objects.bulk_create(
        Feedback(
            assistant=assistant, turn=turns[ready.item.turn], kind=ready.item.kind, metric=ready.item.metric or "",
            value=None if ready.item.value is None else float(ready.item.value),
            boolean=isinstance(ready.item.value, bool), text=ready.text,
            given_at=ready.item.time or ready.received_at, received_at=ready.received_at,
        )
        for ready in feedback
    )  # fmt: skip
    note(
        [_noted(turns[ready.item.turn], row, ready) for row, ready in zip(stored, feedback, strict=True)],
        assistant=assistant,
    )
    return [Learned(ready.row.pk, turns[ready.item.turn].conversation_id, ready.entities) for ready in feedback]


def _noted(turn: Turn, row: Feedback, ready: ReadyFeedback) -> Noted:
    """By the name that `capture.stored_texts` gives to the text of this row."""
    found = [replace(one, field=f"feedback.{row.pk}.text") for one in ready.occurrences]
    return Noted(turn, turn.conversation, found, ready.known, ready.policy_digest)


def write_updates(assistant: Assistant, updates: Sequence[ReadyUpdate]) -> list[Learned]:
    """Sets what the updates say, and notes by which key it was changed. Of two that set the same the one that was known
    later counts: one that waited on a client's disk comes behind its successor.

    Raises:
        TurnMissing: one of the turns is not stored.
        UpdateRefused: a turn would have more tags or metadata than a turn may.
    """
    names = {ready.item.turn for ready in updates}
    # Locked: two workers may have updates of one turn where its conversation was moved between their claims.
    rows = Turn.objects.of(assistant).filter(client_id__in=names).order_by("pk").select_for_update(of=("self",))
    turns = {turn.client_id: turn for turn in rows.select_related("conversation").defer("embedding", "words")}
    if names - turns.keys():
        raise TurnMissing
    since: dict[tuple[str, str], datetime] = {}
    same: dict[str, TurnUpdate] = {}
    for update in TurnUpdate.objects.filter(turn__in=turns.values()).select_related("turn").only(
        "changes", "known_at", "turn__client_id"
    ):  # fmt: skip
        _remember(since, update.turn.client_id, update)
        if SAME in update.changes:
            same[update.turn.client_id] = update
    notes: list[TurnUpdate] = []
    confirmed: dict[str, TurnUpdate] = {}
    for ready in updates:
        turn = turns[ready.item.turn]
        later = {name for (owner, name), known in since.items() if owner == turn.client_id and known > ready.known_at}
        changes, unchanged = _apply(turn, ready, later)
        if fresh := [name for name in unchanged if _is_news(since, turn, name, ready)]:
            row = same.setdefault(turn.client_id, _confirmation(turn, ready))
            row.changes[SAME] |= dict.fromkeys(fresh, ready.known_at.isoformat())
            row.known_at = max(row.known_at, ready.known_at)
            _remember(since, turn.client_id, row)
            confirmed[turn.client_id] = row
        if changes:
            notes.append(
                TurnUpdate(
                    turn=turn, api_key_id=ready.api_key_id, changes=changes, known_at=ready.known_at,
                    received_at=ready.received_at,
                )
            )  # fmt: skip
            _remember(since, turn.client_id, notes[-1])
    Turn.objects.bulk_update(turns.values(), [*_MEASURES, "tags", "metadata"])
    TurnUpdate.objects.bulk_create([*notes, *(row for row in confirmed.values() if row.pk is None)])
    TurnUpdate.objects.bulk_update([row for row in confirmed.values() if row.pk is not None], ["changes", "known_at"])
    note([_noted_late(turns[ready.item.turn], ready) for ready in updates], assistant=assistant)
    return [Learned(ready.row.pk, turns[ready.item.turn].conversation_id, ready.entities) for ready in updates]


def _is_news(since: dict[tuple[str, str], datetime], turn: Turn, name: str, ready: ReadyUpdate) -> bool:
    known = since.get((turn.client_id, name))
    return known is None or known < ready.known_at


def _confirmation(turn: Turn, ready: ReadyUpdate) -> TurnUpdate:
    """The one row of a turn in which updates that changed nothing leave their time: else one that is older than they
    are, and comes later, would win."""
    return TurnUpdate(
        turn=turn, api_key_id=ready.api_key_id, changes={SAME: {}}, known_at=ready.known_at,
        received_at=ready.received_at,
    )  # fmt: skip


def _noted_late(turn: Turn, ready: ReadyUpdate) -> Noted:
    """Tags by their place in the turn, as `capture.stored_texts` names them; nothing of what the turn did not take."""
    found = []
    for one in ready.masked.occurrences:
        kind, _, place = one.field.partition(".")
        if kind == "tags":
            found.append(replace(one, field=f"tags.{turn.tags.index(ready.masked.tags[int(place)])}"))
        elif all(turn.metadata.get(key) == value for key, value in ready.masked.metadata.items()):
            found.append(one)
    return Noted(turn, turn.conversation, found, ready.masked.known, ready.policy_digest)


def _remember(since: dict[tuple[str, str], datetime], turn: str, update: TurnUpdate) -> None:
    """``since``: when what stands in a field now was known, by turn and field (keys of metadata behind a dot)."""
    keys = [f"metadata.{key}" for key in update.changes.get("metadata", ())]
    times = dict.fromkeys([*update.changes.keys() - {"metadata", "tags", SAME}, *keys], update.known_at)
    times |= {name: datetime.fromisoformat(known) for name, known in update.changes.get(SAME, {}).items()}
    for name, known in times.items():
        place = (turn, name)
        since[place] = max(since.get(place, known), known)


def _apply(turn: Turn, ready: ReadyUpdate, later: set[str]) -> tuple[dict[str, Any], list[str]]:
    """(What it changed, as `TurnUpdate.changes`; fields in which just that stood already). ``later``: fields that were
    set to what was known later."""
    changes: dict[str, Any] = {}
    unchanged: list[str] = []
    for name in _MEASURES:
        value = getattr(ready.item, name)
        if name == "latency_ms" and value is not None:
            value = round(value)
        if value is None or name in later:
            continue
        if value == getattr(turn, name):
            unchanged.append(name)
        else:
            changes[name] = [getattr(turn, name), value]
            setattr(turn, name, value)
    new_tags = [tag for tag in dict.fromkeys(ready.masked.tags) if tag not in turn.tags]
    if new_tags:
        if len(turn.tags) + len(new_tags) > MAX_TAGS:
            raise UpdateRefused(f"With this update the turn would have more than {MAX_TAGS} tags.")
        turn.tags = [*turn.tags, *new_tags]
        changes["tags"] = len(new_tags)  # no text: what is masked or erased later stands in the turn alone
    given = {key: value for key, value in ready.masked.metadata.items() if f"metadata.{key}" not in later}
    unchanged += [
        f"metadata.{key}" for key, value in given.items() if key in turn.metadata and turn.metadata[key] == value
    ]
    new_keys = [key for key, value in given.items() if key not in turn.metadata or turn.metadata[key] != value]
    if new_keys:
        merged = {**turn.metadata, **given}
        if len(json.dumps(merged, ensure_ascii=False)) > MAX_METADATA:
            raise UpdateRefused(f"With this update the metadata would be larger than {MAX_METADATA} characters.")
        turn.metadata = merged
        changes["metadata"] = sorted(new_keys)
    return changes, unchanged


def keep_tables(learned: Iterable[Learned]) -> None:
    """Each conversation keeps the table that its last item left. By arrival: items are written kind by kind, and the
    table of feedback that came between two turns knows nobody whom the second brought."""
    newest = {one.conversation: one.entities for one in sorted(learned, key=attrgetter("place"))}
    for conversation, entities in newest.items():
        Conversation.objects.filter(pk=conversation).update(entities=entities)

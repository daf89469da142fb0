"""From a request to quarantine: validated, encrypted, durable, and the same for ever under the same client id."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from django.utils import timezone
from pydantic import ValidationError

from assistants.errors import FieldError
from assistants.models import ApiKey, Assistant
from assistants.prepared import run_prepared, wire_bytes, wire_texts
from assistants.vault import encrypt_all, keyed_hash
from capture.counting import count_statuses
from capture.metrics import declare, holds, misfit
from capture.models import Quarantine, Receipt, Turn
from capture.payloads import FeedbackItem, TurnItem, UpdateItem, field_errors
from capture.quick import QuickTurn
from capture.room import added, waiting
from capture.sealing import packed_all
from capture.vault import conversation_key, erased_ids, stored_id

Status = Literal["created", "duplicate", "conflict", "invalid"]
FEEDBACK_PREFIX = "feedback\x1f"
"""Receipts of feedback and of turns share a table; a client's id holds no control characters, so they never meet."""
UPDATE_PREFIX = "update\x1f"
_ENVELOPE = b'{"api_key":%d,"received":"%s","client":"%s","item":%s}'
_COMPUTING = threading.Lock()
"""One batch at a time is computed. Hashing lets go of the interpreter's lock with every item, and several threads would
hand it to and fro; none of them is sooner done for it."""
NO_TURN: FieldError = {"field": "turn", "message": "There is no such turn"}
_PRODUCT = re.compile(r"[\w.+-]{1,60}(?:/[\w.+-]{1,58})?(?=\s|$)", re.ASCII)


class ItemResult(NamedTuple):
    """What became of one item; ``client_id`` as the client wrote it (empty when it had none that can be read)."""

    client_id: str
    status: Status
    errors: Sequence[FieldError] = ()


@dataclass(slots=True)
class _Valid:
    """One valid item, ready to be encrypted and written."""

    place: int
    client_id: str
    receipt_id: str
    digest: str
    conversation: str
    envelope: bytes


@dataclass
class _Batch:
    results: list[ItemResult | None]
    valid: dict[str, _Valid] = field(default_factory=dict)
    repeats: list[_Valid] = field(default_factory=list)
    received: datetime = field(default_factory=timezone.now)

    def add(self, item: _Valid) -> None:
        if item.receipt_id in self.valid:
            self.repeats.append(item)
        else:
            self.valid[item.receipt_id] = item

    def finish(self) -> list[ItemResult]:
        return [result for result in self.results if result is not None]


def product_of(agent: str) -> str:
    """Name and version of a program from its User-Agent; the rest may say who runs it where, and is dropped."""
    found = _PRODUCT.match(agent)
    return found[0] if found else ""


def receive_turns(
    *, assistant: Assistant, api_key: ApiKey | None, items: Sequence[Any], client: str = ""
) -> list[ItemResult]:
    """Takes turns into quarantine; one result per item, in order. What is not invalid is durable on return.

    An id that is known with the same content is a duplicate, with other content a conflict; neither changes anything.

    Args:
        client: as `product_of` gives it, for items that do not name a client. No part of the content.
    """
    batch = _Batch(results=[None] * len(items))
    own = assistant.pk
    with _COMPUTING:
        keys: dict[str, str] = {}
        for place, raw in enumerate(items):
            try:
                item = raw if isinstance(raw, TurnItem | QuickTurn) else TurnItem.model_validate(raw)
            except ValidationError as error:
                batch.results[place] = ItemResult(_readable_id(raw), "invalid", field_errors(error))
                continue
            receipt_id = stored_id(item.id)
            conversation = stored_id(item.conversation) if item.conversation else receipt_id
            key = keys.get(conversation) or keys.setdefault(conversation, conversation_key(own, conversation))
            batch.add(_valid(item, api_key, batch.received, place=place, client_id=item.id, receipt_id=receipt_id,
                             conversation=key, client=client))  # fmt: skip
    _store(assistant, Quarantine.Kind.TURN, batch)
    return _counted(assistant, api_key, Quarantine.Kind.TURN, batch)


def receive_feedback(*, assistant: Assistant, api_key: ApiKey | None, items: Sequence[Any]) -> list[ItemResult]:
    """Takes feedback into quarantine, behind the turn that it is about.

    Feedback without an id is told from a repeat by its content: the same thumb on the same turn counts once.
    """
    batch = _Batch(results=[None] * len(items))
    parsed: list[tuple[int, FeedbackItem]] = []
    for place, raw in enumerate(items):
        try:
            parsed.append((place, FeedbackItem.model_validate(raw)))
        except ValidationError as error:
            batch.results[place] = ItemResult(_readable_id(raw), "invalid", field_errors(error))
    turns = _known_turns(assistant, [item.turn for _, item in parsed])
    named = [item for _, item in reversed(parsed) if item.metric and item.turn in turns]  # the first of a name counts
    metrics = declare(assistant, {str(item.metric): holds(item.value) for item in named})
    for place, item in parsed:
        shown = item.id or ""
        if item.turn not in turns:
            batch.results[place] = ItemResult(shown, "invalid", [NO_TURN])
            continue
        if item.metric and (wrong := misfit(metrics, item.metric, item.value)):
            batch.results[place] = ItemResult(shown, "invalid", [wrong])
            continue
        turn_id, conversation = turns[item.turn]
        known = item.model_copy(update={"turn": turn_id})
        # The time is no part of it: a client that says the same again may have set the time anew.
        identity = known.model_copy(update={"time": None}).canonical()
        name = stored_id(item.id) if item.id else keyed_hash("feedback", identity).hex()
        batch.add(_valid(known, api_key, batch.received, place=place, client_id=shown, identity=identity,
                         receipt_id=FEEDBACK_PREFIX + name, conversation=conversation))  # fmt: skip
    _store(assistant, Quarantine.Kind.FEEDBACK, batch)
    return _counted(assistant, api_key, Quarantine.Kind.FEEDBACK, batch)


def receive_updates(*, assistant: Assistant, api_key: ApiKey | None, items: Sequence[Any]) -> list[ItemResult]:
    """Takes changes of turns into quarantine, behind their turns: what came to be known of them later.

    With an ``update_id`` one counts once, for ever. Without one it is taken each time, and sets the same values again.
    """
    batch = _Batch(results=[None] * len(items))
    parsed: list[tuple[int, UpdateItem]] = []
    for place, raw in enumerate(items):
        try:
            parsed.append((place, UpdateItem.model_validate(raw)))
        except ValidationError as error:
            batch.results[place] = ItemResult(_readable_id(raw, "turn"), "invalid", field_errors(error))
    turns = _known_turns(assistant, [item.turn for _, item in parsed])
    for place, item in parsed:
        if item.turn not in turns:
            batch.results[place] = ItemResult(item.turn, "invalid", [NO_TURN])
            continue
        turn_id, conversation = turns[item.turn]
        known = item.model_copy(update={"turn": turn_id})
        name = stored_id(item.update_id) if item.update_id else uuid.uuid4().hex
        identity = known.model_copy(update={"update_time": None}).canonical()
        batch.add(_valid(known, api_key, batch.received, place=place, client_id=item.turn, identity=identity,
                         receipt_id=UPDATE_PREFIX + name, conversation=conversation))  # fmt: skip
    _store(assistant, Quarantine.Kind.UPDATE, batch)
    return _counted(assistant, api_key, Quarantine.Kind.UPDATE, batch)


def _counted(assistant: Assistant, key: ApiKey | None, kind: Quarantine.Kind, batch: _Batch) -> list[ItemResult]:
    results = batch.finish()
    count_statuses(assistant, key, kind.value, (result.status for result in results))
    return results


def payload_digest(content: bytes) -> str:
    """Keyed: it outlives the payload, and an open hash of a short text can be guessed."""
    return keyed_hash("payload", content).hex()


def _valid(
    item: TurnItem | QuickTurn | FeedbackItem | UpdateItem,
    key: ApiKey | None,
    received: datetime,
    *,
    place: int,
    client_id: str,
    receipt_id: str,
    conversation: str,
    client: str = "",
    identity: bytes | None = None,
) -> _Valid:
    """``identity``: the content by which a repeat is told from a conflict, where that is not all of it."""
    content = item.canonical()
    # A turn without a time was asked when it came: each a little later than the one before, so lists keep the order.
    came = (received + timedelta(microseconds=place)).isoformat().encode()
    return _Valid(
        place=place,
        client_id=client_id,
        receipt_id=receipt_id,
        digest=payload_digest(identity or content),
        conversation=conversation,
        envelope=_ENVELOPE % (key.pk if key else 0, came, client.encode(), content),
    )


# One statement, so one transaction and one round trip: a receipt never exists without its payload. Receipts go in by
# id, so that two batches with the same ids wait for each other in the same order; payloads in order of arrival. Last,
# whether others wait already: of what this statement inserts it sees nothing.
#
# Where much waits it is planned once per connection, since planning it takes longer than inserting ten turns. Not where
# little does: a plan that is made for a table with next to nothing in it reads all of that table, and is kept until
# autovacuum analyses it again, a minute of a burst. And nothing in it may be joined to a table: an aggregate of each id
# alone and the first by an index are looked up in indexes, where a kept plan for EXISTS may read all of the table.
# Payloads are taken out of their array last, since each step that they go through copies them.
PLANNED_FROM = 1000
"""Items that wait. Fewer are soon read, and leave time for planning."""
_INSERT = f"""
WITH item AS (
    SELECT * FROM unnest(%(ids)s::text[], %(digests)s::text[], %(conversations)s::text[], %(erased)s::text[])
    WITH ORDINALITY AS t (client_id, digest, conversation, erased, place)
), receipt AS (
    INSERT INTO {Receipt._meta.db_table} (assistant_id, client_id, payload_digest, received_at)
    SELECT %(assistant)s::bigint, client_id, digest, %(now)s::timestamptz FROM item
    WHERE 0 = (SELECT count(*) FROM {Receipt._meta.db_table} gone
               WHERE gone.assistant_id = %(assistant)s::bigint AND gone.client_id = item.erased)
    ORDER BY client_id
    ON CONFLICT (assistant_id, client_id) DO NOTHING
    RETURNING id, client_id
), stored AS (
    INSERT INTO {Quarantine._meta.db_table}
        (assistant_id, receipt_id, kind, conversation_key, payload, state, attempts, error, received_at)
    SELECT %(assistant)s::bigint, new.id, %(kind)s, new.conversation, (%(payloads)s::bytea[])[new.place], 'waiting', 0,
           '', %(now)s::timestamptz
    FROM (SELECT receipt.id, item.conversation, item.place::int AS place
          FROM receipt JOIN item USING (client_id) ORDER BY item.place OFFSET 0) AS new
    RETURNING id, receipt_id
)
SELECT receipt.client_id, stored.id,
       (SELECT id FROM {Quarantine._meta.db_table}
        WHERE state = 'waiting' AND claimed_until IS NULL ORDER BY id LIMIT 1) IS NOT NULL
FROM receipt JOIN stored ON stored.receipt_id = receipt.id
"""  # noqa: S608


def _store(assistant: Assistant, kind: Quarantine.Kind, batch: _Batch) -> None:
    items = list(batch.valid.values())
    if not items:
        return
    packed = packed_all([item.envelope for item in items])
    with _COMPUTING:
        payloads = encrypt_all(packed)
    begun = time.monotonic()
    rows = run_prepared(
        _INSERT,
        {
            "ids": wire_texts([item.receipt_id for item in items]),
            "digests": wire_texts([item.digest for item in items]),
            "conversations": wire_texts([item.conversation for item in items]),
            "payloads": wire_bytes(payloads),
            "erased": wire_texts(erased_ids(assistant.pk, [item.receipt_id for item in items])),
            "assistant": assistant.pk,
            "kind": kind.value,
            "now": timezone.now(),
        },
        plan_once=waiting(assistant) >= PLANNED_FROM,
    )
    quick = time.monotonic() - begun < _QUICK_SECONDS
    created = {name for name, _, _ in rows}
    stored = [len(payload) for item, payload in zip(items, payloads, strict=True) if item.receipt_id in created]
    added(assistant, len(stored), sum(stored))
    known = _known_digests(assistant, [item.receipt_id for item in items if item.receipt_id not in created])
    for item in items:
        status: Status = "created"
        if item.receipt_id not in created:
            # An erased id that never came so far as to have a digest is answered like a repeat.
            status = "duplicate" if known.get(item.receipt_id) in (item.digest, "") else "conflict"
        batch.results[item.place] = _result(item, status)
    for item in batch.repeats:
        same = batch.valid[item.receipt_id].digest == item.digest
        batch.results[item.place] = _result(item, "duplicate" if same else "conflict")
    if rows:
        _announce(first=min(pk for _, pk, _ in rows), seen=rows[0][2], quick=quick)


def _result(item: _Valid, status: Status) -> ItemResult:
    conflict: FieldError = {"field": "id", "message": "This id was used before with other content"}
    return ItemResult(item.client_id, status, [conflict] if status == "conflict" else ())


def _known_digests(assistant: Assistant, ids: list[str]) -> dict[str, str]:
    if not ids:
        return {}
    erased = dict(zip(erased_ids(assistant.pk, ids), ids, strict=True))
    found = Receipt.objects.filter(assistant=assistant, client_id__in=[*ids, *erased])
    return {erased.get(name, name): digest for name, digest in found.values_list("client_id", "payload_digest")}


_UNCLAIMED = f"""
SELECT 1 FROM {Quarantine._meta.db_table}
WHERE state = 'waiting' AND id < %(first)s::bigint AND claimed_until IS NULL ORDER BY id LIMIT 1
"""  # noqa: S608
_QUICK_SECONDS = 0.002
"""A worker that claims something, if only to hold it, and looks for more asks the database a dozen times meanwhile, and
waits for a commit."""


def _announce(*, first: int, seen: bool, quick: bool) -> None:
    """Queues the scrub job unless it is queued already: whoever finds work before its own knows that somebody has.

    A job that was never queued (a crash right here) is made up for by the schedule.

    Args:
        first: the least of the new items' keys.
        seen: whether there was unclaimed work when the items were inserted. It could have been claimed, scrubbed, and
            the worker have looked for more, before they were committed; so that counts only where
        quick: the insert took less time than a worker takes for that. Otherwise it is looked again.
    """
    if seen and (quick or run_prepared(_UNCLAIMED, {"first": first}, plan_once=False)):
        return
    from capture.jobs import enqueue_scrub

    enqueue_scrub()


def _known_turns(assistant: Assistant, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{as the client named it: (receipt id, conversation key)} of turns that are stored or still wait."""
    by_id = {name: stored_id(name) for name in dict.fromkeys(names)}
    stored = Turn.objects.of(assistant).select_related("conversation").only("client_id", "conversation__external_id")
    waiting = Quarantine.objects.filter(assistant=assistant, receipt__client_id__in=by_id.values())
    found = dict(waiting.values_list("receipt__client_id", "conversation_key"))
    for turn in stored.filter(client_id__in=by_id.values()):
        found[turn.client_id] = conversation_key(assistant.pk, turn.conversation.external_id)
    known = {name: (key, found[key]) for name, key in by_id.items() if key in found}
    uuids = [name for name in by_id if name not in known and _is_uuid(name)]
    if uuids:
        for turn in stored.filter(pk__in=uuids):
            key = conversation_key(assistant.pk, turn.conversation.external_id)
            known |= {name: (turn.client_id, key) for name in uuids if name.lower() == str(turn.pk)}
    return known


def _is_uuid(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4 and all(c in "0123456789abcdef-" for c in text.lower())


def _readable_id(raw: Any, name: str = "id") -> str:
    """The id of an item that could not be taken, if it is one that may be shown."""
    given = raw.get(name) if isinstance(raw, Mapping) else None
    return given if isinstance(given, str) and len(given) <= 200 and given.isprintable() else ""

"""The scrub job: quarantined payloads become turns, or stay held. Fails closed.

Nothing is stored before all of its text has gone through the scrubber, and the payload is destroyed in the transaction
that stores the result. Whatever goes wrong with an item holds that item, with a sentence that quotes nothing of it;
what goes wrong around the items (no database, no embedder) gives them back untouched.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import DataError, IntegrityError

from assistants.models import ApiKey, Assistant
from assistants.policies import policy_of
from assistants.vault import PayloadUnreadable
from capture import counting
from capture.claims import BATCH, Claim, LeaseLost, claim, done, give_back, hold, release
from capture.late_storing import ReadyFeedback, ReadyUpdate, TurnMissing, UpdateRefused
from capture.masking import mask_feedback, mask_turn, mask_update
from capture.models import Conversation, IntakeCount, Quarantine, Receipt, Turn
from capture.own_texts import OwnTexts
from capture.payloads import FeedbackItem, TurnItem, UpdateItem
from capture.sealing import content_of
from capture.storing import Ready, ReadyTurn, StaleTable, Vectors, make_vectors, write
from capture.vault import entities_key, stored_id
from privacy.entities import EntityTable
from privacy.findings import ScrubError
from privacy.scrubber import Scrubber

logger = logging.getLogger(__name__)
FEW = 16


@dataclass
class ScrubReport:
    """``more``: time ran out before the line was empty."""

    scrubbed: int = 0
    held: int = 0
    more: bool = False

    @property
    def sentence(self) -> str:
        return f"{self.scrubbed} scrubbed, {self.held} held" + (", more waiting" if self.more else "")


@dataclass(frozen=True)
class _Opened:
    """A decrypted item."""

    row: Quarantine
    item: TurnItem | FeedbackItem | UpdateItem
    client_id: str
    conversation: str
    api_key_id: int | None
    received_at: datetime
    client: str


def scrub_waiting(*, seconds: float | None = None, batch: int = BATCH, gather: float = 0.0) -> ScrubReport:
    """Scrubs batch after batch until nothing is left that may be taken, or ``seconds`` are over.

    Args:
        gather: seconds to wait at the end, when there were few. The first of turns that come one by one is scrubbed at
            once, those that follow wait for the next job, together: a job and a batch for each cost several times what
            the turn itself does. Only then, and once: a job that waited for more while there are some would never end.
    """
    report = ScrubReport()
    end = time.monotonic() + seconds if seconds is not None else None
    few = False
    while True:
        claimed = claim(limit=batch)
        if not claimed.rows:
            if few:
                time.sleep(gather)
            return report
        scrub_claimed(claimed, report)
        few = len(claimed.rows) <= FEW
        counting.flush_due()
        if end is not None and time.monotonic() > end:
            report.more = True
            return report


def scrub_item(quarantine_pk: int) -> bool:
    """Scrubs one item now; False when it is not waiting, is held after the attempt, or must wait for others."""
    claimed = claim(only=quarantine_pk)
    report = ScrubReport()
    if claimed.rows:
        scrub_claimed(claimed, report)
    return report.scrubbed == 1


def scrub_claimed(claimed: Claim, report: ScrubReport) -> None:
    """Scrubs what was claimed, assistant by assistant.

    Raises:
        Exception: something around the items failed; those not done were given back first.
    """
    by_assistant: dict[int, list[Quarantine]] = {}
    for row in claimed.rows:
        by_assistant.setdefault(row.assistant_id, []).append(row)
    assistants = Assistant.objects.in_bulk(by_assistant)
    try:
        for key, rows in by_assistant.items():
            _Batch(assistants[key], claimed.of(rows), report).run()
    except BaseException:
        release(claimed)  # only what still carries our lease: neither the stored nor the held
        raise
    done(claimed)


class _Batch:
    """Items of one assistant on their way from payload to row."""

    def __init__(self, assistant: Assistant, claimed: Claim, report: ScrubReport) -> None:
        self.assistant = assistant
        self.claimed = claimed
        self.report = report
        self.scrubber = Scrubber(policy_of(assistant))
        self.policy_digest = self.scrubber.policy.digest()
        self.tables: dict[int, tuple[str, Mapping[str, Any]]] = {}
        """{item: its conversation, and the table of masks that it was masked with}"""

    def run(self) -> None:
        opened = self._open()
        contexts = [c for one in opened if isinstance(one.item, TurnItem) for c in one.item.contexts]
        own = OwnTexts.of(self.assistant, contexts)
        ready = self._mask(opened, own)
        vectors = make_vectors(self.assistant, [item for item in ready if isinstance(item, ReadyTurn)], own)
        self._write(ready, vectors)

    def _hold(self, row: Quarantine, sentence: str) -> None:
        hold(self.claimed.of([row]), sentence)
        self.report.held += 1
        counting.count(self.assistant.pk, None, IntakeCount.Event.HELD, row.kind)
        logger.warning("Quarantined item %s is held: %s", row.pk, sentence)

    def _open(self) -> list[_Opened]:
        rows = self.claimed.rows
        receipts = Receipt.objects.in_bulk([row.receipt_id for row in rows if row.receipt_id])
        opened: list[_Opened] = []
        for row in rows:
            receipt = receipts.get(row.receipt_id or 0)
            try:
                opened.append(_opened(row, receipt.client_id if receipt else f"item-{row.pk}"))
            except PayloadUnreadable:
                self._hold(row, "No key opens this payload. Put the old key behind the new one in RATCHET_DATA_KEY.")
            except Exception as error:
                self._hold(row, f"The payload cannot be read ({type(error).__name__}).")
        return self._without_lost_keys(opened)

    def _without_lost_keys(self, opened: list[_Opened]) -> list[_Opened]:
        """A key that is gone since must not cost the turn."""
        wanted = {one.api_key_id for one in opened if one.api_key_id}
        keys = set(ApiKey.objects.filter(pk__in=wanted).values_list("pk", flat=True))
        return [one if one.api_key_id in keys else replace(one, api_key_id=None) for one in opened]

    def _mask(self, opened: Sequence[_Opened], own: OwnTexts) -> list[Ready]:
        conversations = self._conversation_names(opened)
        stored = Conversation.objects.filter(assistant=self.assistant, external_id__in=conversations.values())
        tables = dict(stored.values_list("external_id", "entities"))
        ready: list[Ready] = []
        for one in opened:
            name = conversations[one.row.pk]
            try:
                key = entities_key(self.assistant.pk, name)
                self.tables[one.row.pk] = (name, tables.get(name, {}))
                table = EntityTable.from_dict(tables.get(name, {}), key=key)
                ready.append(self._mask_one(one, name, table, own))
            except ScrubError as error:
                self._hold(one.row, str(error))
            except Exception as error:
                self._hold(one.row, f"Scrubbing failed ({type(error).__name__}).")
            else:
                tables[name] = ready[-1].entities
        return ready

    def _conversation_names(self, opened: Sequence[_Opened]) -> dict[int, str]:
        """{quarantine pk: conversation}. What comes later says which turn it means; that knows its conversation."""
        names = {one.row.pk: one.conversation for one in opened if isinstance(one.item, TurnItem)}
        by_turn = {one.client_id: one.conversation for one in opened if isinstance(one.item, TurnItem)}
        wanted = {one.item.turn for one in opened if not isinstance(one.item, TurnItem)} - by_turn.keys()
        if wanted:
            found = Turn.objects.of(self.assistant).filter(client_id__in=wanted)
            by_turn |= dict(found.values_list("client_id", "conversation__external_id"))
        for one in opened:
            if not isinstance(one.item, TurnItem):
                names[one.row.pk] = by_turn.get(one.item.turn, "")
        return names

    def _mask_one(self, one: _Opened, conversation: str, table: EntityTable, own: OwnTexts) -> Ready:
        if isinstance(one.item, FeedbackItem):
            said = mask_feedback(item=one.item, scrubber=self.scrubber, table=table)
            return ReadyFeedback(
                one.row, one.item, said.text, table.to_dict(), one.received_at,
                occurrences=said.occurrences, known=said.known, policy_digest=self.policy_digest,
            )  # fmt: skip
        if isinstance(one.item, UpdateItem):
            update = mask_update(item=one.item, scrubber=self.scrubber, table=table)
            return ReadyUpdate(
                one.row, one.item, update, table.to_dict(), one.api_key_id, one.received_at, self.policy_digest
            )
        masked = mask_turn(
            item=one.item, assistant=self.assistant, scrubber=self.scrubber, table=table, is_ours=own.holds,
            client=one.client,
        )  # fmt: skip
        return ReadyTurn(
            row=one.row,
            client_id=one.client_id,
            conversation=conversation,
            item=one.item,
            masked=masked,
            entities=table.to_dict(),
            policy_digest=self.policy_digest,
            api_key_id=one.api_key_id,
            received_at=one.received_at,
        )

    def _write(self, ready: list[Ready], vectors: Vectors, *, again: bool = False) -> None:
        """All in one transaction; when the rows of one item are refused, one by one, so that only that one is held."""
        if not ready:
            return
        tables: dict[str, Mapping[str, Any]] = {}
        for item in ready:
            tables.setdefault(*self.tables[item.row.pk])
        try:
            write(assistant=self.assistant, claimed=self.claimed, ready=ready, vectors=vectors, tables=tables)
        except (LeaseLost, StaleTable, TurnMissing, UpdateRefused, DataError, IntegrityError, ValueError) as error:
            if len(ready) == 1 and isinstance(error, IntegrityError) and not again:
                # Perhaps a passage that a review or an erasure has just deleted: it is stored anew.
                self._write(ready, vectors, again=True)
                return
            if len(ready) == 1:
                self._refused(ready[0].row, error)
                return
        else:
            self.report.scrubbed += len(ready)
            for kind, n in Counter(one.row.kind for one in ready).items():
                counting.count(self.assistant.pk, None, IntakeCount.Event.SCRUBBED, kind, n)
            return
        for item in ready:
            self._write([item], vectors)

    def _refused(self, row: Quarantine, error: Exception) -> None:
        if isinstance(error, LeaseLost):
            logger.warning("Quarantined item %s was taken over or removed meanwhile.", row.pk)
        elif isinstance(error, StaleTable):
            give_back(self.claimed.of([row]))  # masked again with the table as it is now
        elif isinstance(error, TurnMissing):
            self._hold(row, "The turn that it belongs to is not stored (held, or removed).")
        elif isinstance(error, UpdateRefused):
            self._hold(row, str(error))
        else:
            self._hold(row, f"Storing failed ({type(error).__name__}).")


_MODELS: Mapping[Quarantine.Kind, type[TurnItem | FeedbackItem | UpdateItem]] = {
    Quarantine.Kind.TURN: TurnItem,
    Quarantine.Kind.FEEDBACK: FeedbackItem,
    Quarantine.Kind.UPDATE: UpdateItem,
}


def _opened(row: Quarantine, client_id: str) -> _Opened:
    envelope = json.loads(content_of(row.payload))
    item = _MODELS[Quarantine.Kind(row.kind)].model_validate(envelope["item"])
    conversation = ""
    if isinstance(item, TurnItem):
        conversation = stored_id(item.conversation) if item.conversation else client_id
    return _Opened(
        row=row,
        item=item,
        client_id=client_id,
        conversation=conversation,
        api_key_id=envelope["api_key"] or None,
        received_at=datetime.fromisoformat(envelope["received"]),
        client=envelope["client"],
    )

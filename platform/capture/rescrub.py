"""Stored texts through the scrubber once more, under the policy that counts now.

There is no raw text any more, so masks are only added: placeholders that are there stay what they are. Conversation by
conversation, each in one transaction behind a lock of its row, so that it can be killed anywhere and goes on after the
last one that is done. A dry run does the same and writes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from django.db import transaction

from assistants.background import HEARTBEAT_SECONDS
from assistants.policies import rules_in
from capture import vectors
from capture.models import Conversation, Rescrub, Turn
from capture.stored_texts import Changes, StoredTurn, stored_turns
from capture.uncertain import Noted, described, note, occurrences
from capture.vault import entities_key
from privacy.entities import EntityTable
from privacy.findings import MaskedText, ScrubError, placeholder
from privacy.scrubber import Scrubber, ScrubText

_BATCH = 200


def perform(work: Rescrub) -> None:
    """Scrubs every turn of the assistant that another policy has scrubbed; resumes behind ``work.cursor``.

    A turn that cannot be scrubbed (a pattern ran too long) is counted and keeps its digest: the next run takes it up.
    """
    _Pass(work).run()


class _Pass:
    """One walk through the conversations of an assistant."""

    def __init__(self, work: Rescrub) -> None:
        policy = rules_in(work.policy).policy
        self.work = work
        self.scrubber, self.digest = Scrubber(policy), policy.digest()
        self.counts: Counter[str] = Counter({k: v for k, v in work.counts.items() if k != "masks"})
        self.masks: Counter[str] = Counter(work.counts.get("masks", {}))
        self.all = Conversation.objects.filter(assistant=work.assistant).order_by("pk")
        self.done = self.all.filter(pk__lte=work.cursor).count()

    def run(self) -> None:
        work = self.work
        stage = "counting what would change" if work.dry_run else "scrubbing again"
        work.beat(stage=stage, done=self.done, total=self.all.count())
        stale = Turn.objects.filter(assistant=work.assistant).exclude(policy_digest=self.digest)
        beaten = time.monotonic()
        while keys := list(self.all.filter(pk__gt=work.cursor).values_list("pk", flat=True)[:_BATCH]):
            wanted = set(stale.filter(conversation__in=keys).values_list("conversation_id", flat=True))
            for key in keys:
                if key in wanted:
                    self._conversation(key)
                self.done += 1
                work.cursor = key
                if time.monotonic() - beaten > HEARTBEAT_SECONDS / 2:
                    self._store()
                    beaten = time.monotonic()
            self._store()

    def _store(self) -> None:
        work = self.work
        work.beat(done=self.done)  # first: who lost the work writes nothing
        work.counts = {**self.counts, "masks": dict(self.masks)}
        work.keep("cursor", "counts")

    def _conversation(self, key: int) -> None:
        changes = Changes()
        with transaction.atomic():
            conversation = Conversation.objects.select_for_update().filter(pk=key).first()
            if conversation is None:
                return
            hashed = entities_key(conversation.assistant_id, conversation.external_id)
            table = EntityTable.from_dict(conversation.entities, key=hashed)
            stale = stored_turns(conversation).exclude(policy_digest=self.digest)
            for turn in stale.iterator(chunk_size=50):
                self.counts["seen"] += 1
                try:
                    self._turn(conversation, turn, table, changes)
                except ScrubError:
                    self.counts["failed"] += 1
            if not self.work.dry_run:
                Conversation.objects.filter(pk=key).update(entities=table.to_dict())
        self.counts.update(changes.rows)
        vectors.fill([str(pk) for pk in changes.turns], sorted(changes.passages))

    def _turn(self, conversation: Conversation, turn: Turn, table: EntityTable, changes: Changes) -> None:
        known = frozenset(placeholder(entity.entity_type, entity.ordinal) for entity in table.entities)
        stored = StoredTurn(turn)
        # None leaves it to the policy, which may have turned trust off; never the other way round.
        texts = [ScrubText(place.kind, place.text, None if place.trusted else False) for place in stored.places]
        masked = self.scrubber.scrub_turn(texts, table)
        found = [
            one
            for place, result in zip(stored.places, masked, strict=True)
            for one in occurrences(place.name, place.text, result)
        ]
        self.masks.update(one.entity_type for one in found)
        if self.work.dry_run:
            _count(stored, masked, changes)
            return
        if changed := stored.change([result.text for result in masked]):
            stored.save(changed, changes, pii=[*turn.pii, *(described(one) for one in found)])
            noted = Noted(turn, conversation, found, known, self.digest)
            note([noted], assistant=self.work.assistant)
        Turn.objects.filter(pk=turn.pk).update(policy_digest=self.digest)


def _count(stored: StoredTurn, masked: list[MaskedText], changes: Changes) -> None:
    """As many rows as `StoredTurn.save` would change."""
    rows: set[tuple[str, Any]] = set()
    for place, result in zip(stored.places, masked, strict=True):
        if result.text == place.text:
            continue
        table, _, rest = place.name.partition(".")
        if table == "contexts":
            rows.add(("passages", rest.partition(".")[0]))
        elif table in ("feedback", "annotations", "missed", "machine_labels", "live_answers", "resolutions"):
            rows.add((table, rest))
        else:
            rows.add(("turns", ""))
    for table, _ in rows:
        changes.count(table)

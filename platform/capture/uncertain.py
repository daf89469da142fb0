"""Uncertain masks are noted when a text is stored, and their values kept, encrypted, for the review."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from assistants.models import Assistant
from assistants.policies import rules_of
from assistants.vault import encrypt
from capture.models import Conversation, KeptSpelling, Turn, UncertainMask
from privacy.findings import MaskedText

_REPEATED = frozenset({"existing", "conversation:literal"})
"""Recognisers that only say again what another one has found."""
MAX_SPELLINGS = 2_000
"""Of one turn: beyond that a release writes the value as it stood first."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A placeholder with the text that it stands for. Lives in memory only, until the row is written."""

    field: str
    placeholder: str
    entity_type: str
    form: str
    score: float
    recognizer: str
    context_word: str
    uncertain: bool


def occurrences(field: str, original: str, masked: MaskedText) -> list[Occurrence]:
    """What was masked in one text, in reading order; placeholders that it brought along are not among it."""
    return [
        Occurrence(
            field=field,
            placeholder=masked.text[span.start : span.end],
            entity_type=span.entity_type,
            form=original[span.original_start : span.original_end],
            score=span.score,
            recognizer=span.recognizer,
            context_word=span.context_word or "",
            uncertain=span.uncertain,
        )
        for span in masked.spans
        if span.recognizer != "existing"
    ]


def described(found: Occurrence) -> dict[str, Any]:
    """As it is stored with the turn: without the value."""
    plain: dict[str, Any] = {
        "field": found.field,
        "placeholder": found.placeholder,
        "type": found.entity_type,
        "score": found.score,
        "recognizer": found.recognizer,
    }
    if found.context_word:
        plain["context_word"] = found.context_word
    if found.uncertain:
        plain["uncertain"] = True
    return plain


@dataclass(frozen=True)
class Noted:
    """What one turn brings. ``known``: placeholders that the conversation had before it."""

    turn: Turn
    conversation: Conversation
    occurrences: Sequence[Occurrence]
    known: frozenset[str]
    policy_digest: str


def note(noted: Iterable[Noted], *, assistant: Assistant) -> int:
    """Notes new uncertain masks, keeps the spellings of all that are open, closes those that are certain now. In the
    transaction that stores the turns, in their order. Returns how many are new."""
    items = [item for item in noted if item.occurrences]
    if not items:
        return 0
    days: int | None = None
    conversations = {item.conversation.pk for item in items}
    rows = UncertainMask.objects.open().filter(conversation__in=conversations).select_for_update().order_by("pk")
    open_masks = {(row.conversation_id, row.placeholder): row for row in rows}
    new: list[UncertainMask] = []
    confirmed: list[UncertainMask] = []
    spellings: list[tuple[UncertainMask, Turn, str, list[str]]] = []
    for item in items:
        for placeholder, places in _by_placeholder(item.occurrences).items():
            key = (item.conversation.pk, placeholder)
            mask = open_masks.get(key)
            found = [place for place in places if place.recognizer not in _REPEATED]
            if any(not place.uncertain for place in found):
                if mask is not None:
                    confirmed.append(open_masks.pop(key))
                continue
            if mask is None and found and placeholder not in item.known:
                days = days or rules_of(assistant).review_days
                mask = open_masks[key] = _mask(item, found[0], days)
                new.append(mask)
            if mask is not None:
                spellings += [(mask, item.turn, field, forms) for field, forms in _by_field(places).items()]
    if new:
        from capture.jobs import ensure_expiry_schedule

        ensure_expiry_schedule()
    UncertainMask.objects.bulk_create(mask for mask in new if mask not in confirmed)
    _keep([entry for entry in spellings if entry[0] not in confirmed])
    stored = [mask.pk for mask in confirmed if mask.pk]
    KeptSpelling.objects.filter(mask__in=stored).delete()
    UncertainMask.objects.filter(pk__in=stored).update(state=UncertainMask.State.CONFIRMED, decided_at=timezone.now())
    return len(new)


def _mask(item: Noted, first: Occurrence, days: int) -> UncertainMask:
    now = timezone.now()
    return UncertainMask(
        assistant_id=item.turn.assistant_id,
        conversation=item.conversation,
        turn=item.turn,
        placeholder=first.placeholder,
        entity_type=first.entity_type,
        field=first.field[:200],
        recognizer=first.recognizer[:120],
        score=first.score,
        context_word=first.context_word[:60],
        policy_digest=item.policy_digest,
        found_at=now,
        expires_at=now + timedelta(days=days),
    )


def _keep(spellings: Sequence[tuple[UncertainMask, Turn, str, list[str]]]) -> None:
    KeptSpelling.objects.bulk_create(
        [
            KeptSpelling(mask=mask, turn=turn, field=field, forms=encrypt(json.dumps(forms).encode()))
            for mask, turn, field, forms in spellings[:MAX_SPELLINGS]
            if len(field) <= 200
        ],
        ignore_conflicts=True,
    )


def _by_placeholder(found: Sequence[Occurrence]) -> Mapping[str, list[Occurrence]]:
    grouped: dict[str, list[Occurrence]] = {}
    for one in found:
        grouped.setdefault(one.placeholder, []).append(one)
    return grouped


def _by_field(found: Sequence[Occurrence]) -> Mapping[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for one in found:
        grouped.setdefault(one.field, []).append(one.form)
    return grouped

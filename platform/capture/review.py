"""Decisions about uncertain masks. Each is one atomic act with its audit event, and no event holds a value.

The conversation's row is locked first, always: so do the worker that stores its next turn and an annotator's save, and
of two officers who decide at the same time the second is told that the first was quicker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from assistants.models import Assistant
from assistants.policies import add_value, policy_of
from assistants.services import audit
from assistants.vault import PayloadUnreadable, decrypt
from capture.models import Conversation, KeptSpelling, Turn, UncertainMask
from capture.stored_texts import Changes, Place, StoredTurn, stored_turns
from capture.vault import entities_key
from privacy.entities import EntityTable, Value
from privacy.findings import ALL_TYPES, PLACEHOLDER, placeholder

MAX_SELECTED = 200
MIN_SELECTED = 2
_STATES = UncertainMask.State


class NotDecided(Exception):
    """The decision was not made; the message says why, and quotes no value."""


@dataclass(frozen=True)
class Done:
    """``rows``: how many rows were changed, by table."""

    rows: Mapping[str, int]

    @property
    def sentence(self) -> str:
        parts = [f"{count} {table}" for table, count in sorted(self.rows.items()) if count]
        return ", ".join(parts) or "nothing else"


def reveal(*, mask: UncertainMask, actor: User) -> list[str]:
    """The spellings of an open mask, the most frequent first. That somebody saw them is on record before they do.

    Raises:
        NotDecided: it was decided or is over its time, or no key opens it.
    """
    with transaction.atomic():
        locked = _open(mask)
        audit(
            assistant=locked.assistant, actor=actor, action="review.value_seen", target=_target(locked),
            details={"turn": str(locked.turn_id)},
        )  # fmt: skip
        return _spellings_in_order(_spellings(locked))


@transaction.atomic
def accept(*, mask: UncertainMask, actor: User, deny: bool = False) -> None:
    """It stays masked, and its value is destroyed. ``deny``: the value goes on the deny list first.

    Raises:
        NotDecided: somebody was quicker, or the value cannot be put on the list.
    """
    locked = _open(mask)
    if deny:
        _list("deny", locked, actor)
    _close(locked, _STATES.ACCEPTED, actor)
    audit(
        assistant=locked.assistant, actor=actor, action="review.accepted", target=_target(locked),
        details={"turn": str(locked.turn_id), "denied": deny},
    )  # fmt: skip


@transaction.atomic
def release(*, mask: UncertainMask, actor: User, allow: bool = False) -> Done:
    """The value goes back wherever its placeholder stands in the conversation. ``allow``: and is never masked again.

    Raises:
        NotDecided: somebody was quicker, the value is on the deny list, or no key opens it.
    """
    locked = _open(mask)
    kept = _spellings(locked)
    forms = _spellings_in_order(kept)
    if not forms:
        raise NotDecided("Its value is gone, so nothing can be put back.")
    if not allow:
        _refuse_denied(locked.assistant, forms)
    else:
        _list("allow", locked, actor)
    conversation = locked.conversation
    table = _table(conversation)
    match = PLACEHOLDER.fullmatch(locked.placeholder)
    assert match is not None
    table.release(match.group(1), int(match.group(2)), forms)
    Conversation.objects.filter(pk=conversation.pk).update(entities=table.to_dict())

    def restore(turn: Turn, place: Place) -> str:
        return _restored(place.text, locked.placeholder, kept.get((turn.pk, place.name), ()), forms[0])

    changes = _rewrite(conversation, locked.placeholder, restore, gone=True)
    _close(locked, _STATES.RELEASED, actor)
    audit(
        assistant=locked.assistant, actor=actor, action="review.released", target=_target(locked),
        details={"turn": str(locked.turn_id), "allowed": allow, "rows": changes.rows},
    )  # fmt: skip
    return Done(changes.rows)


@transaction.atomic
def mask_more(*, turn: Turn, selected: str, entity_type: str, actor: User, deny: bool = False) -> Done:
    """Masks a text wherever it stands in the turn's conversation, and from now on. ``deny``: in all others to come.

    Raises:
        NotDecided: the selection is too short or too long, holds a placeholder, or stands nowhere any more.
    """
    value = " ".join(selected.split())
    if not MIN_SELECTED <= len(value) <= MAX_SELECTED:
        raise NotDecided(f"Select between {MIN_SELECTED} and {MAX_SELECTED} characters.")
    if entity_type not in ALL_TYPES:
        raise NotDecided("There is no such type.")
    if PLACEHOLDER.search(value) or not any(char.isalnum() for char in value):
        raise NotDecided("Select text that is not masked yet, with at least one letter or digit in it.")
    conversation = Conversation.objects.select_for_update().get(pk=turn.conversation_id)
    table = _table(conversation)
    mark = placeholder(entity_type, table.assign([Value(entity_type, value, private=True)])[0].ordinal)
    pattern = pattern_of(value)

    def hide(_turn: Turn, place: Place) -> str:
        return masked_literally(place.text, pattern, mark)

    changes = _rewrite(conversation, mark, hide, gone=False, entity_type=entity_type)
    if not changes.rows:
        raise NotDecided("This text stands nowhere in the conversation. Select it again as it is shown.")
    Conversation.objects.filter(pk=conversation.pk).update(entities=table.to_dict())
    if deny:
        _list_value("deny", turn.assistant, value, actor)
    audit(
        assistant=turn.assistant, actor=actor, action="review.masked_more", target=f"{mark} in turn {turn.pk}",
        details={"denied": deny, "rows": changes.rows},
    )  # fmt: skip
    return Done(changes.rows)


def expire() -> int:
    """Destroys the values whose time is over; their masks stay. How many."""
    count = 0
    for key in UncertainMask.objects.expired().order_by("pk").values_list("pk", flat=True)[:10_000]:
        with transaction.atomic():
            # An officer who decides just now holds the row: what they decide counts.
            mask = (
                UncertainMask.objects.expired().select_for_update(skip_locked=True, of=("self",)).filter(pk=key).first()
            )
            if mask is None:
                continue
            _close(mask, _STATES.EXPIRED, None)
            audit(
                assistant=mask.assistant, actor=None, action="review.expired", target=_target(mask),
                details={"turn": str(mask.turn_id)},
            )  # fmt: skip
            count += 1
    return count


def pattern_of(value: str) -> re.Pattern[str]:
    """Finds a selected text again: any case, any white space between its words, whole words at its ends."""
    body = r"\s+".join(re.escape(word) for word in value.split())
    before = r"(?<!\w)" if value[0].isalnum() else ""
    after = r"(?!\w)" if value[-1].isalnum() else ""
    return re.compile(before + body + after, re.IGNORECASE)


def masked_literally(text: str, pattern: re.Pattern[str], mark: str) -> str:
    """The text with every match replaced, placeholders left alone."""
    parts: list[str] = []
    position = 0
    for known in PLACEHOLDER.finditer(text):
        parts += [pattern.sub(mark, text[position : known.start()]), known.group()]
        position = known.end()
    return "".join([*parts, pattern.sub(mark, text[position:])])


def _restored(text: str, mark: str, forms: Sequence[str], first: str) -> str:
    """As it was written in this very place where that is known, else as it was written first."""
    pieces = text.split(mark)
    if len(forms) != len(pieces) - 1:
        forms = [first] * (len(pieces) - 1)
    return pieces[0] + "".join(form + piece for form, piece in zip(forms, pieces[1:], strict=True))


def _rewrite(
    conversation: Conversation,
    mark: str,
    rewrite: Callable[[Turn, Place], str],
    *,
    gone: bool,
    entity_type: str = "",
) -> Changes:
    """Every text of the conversation through a function; ``gone``: the placeholder is no mask of it any more."""
    changes = Changes()
    for turn in stored_turns(conversation).iterator(chunk_size=100):
        stored = StoredTurn(turn)
        changed = stored.change([rewrite(turn, place) for place in stored.places])
        if not changed:
            continue
        pii = [entry for entry in turn.pii if not (gone and entry.get("placeholder") == mark)]
        if not gone:
            pii += [
                {
                    "field": place.name,
                    "placeholder": mark,
                    "type": entity_type,
                    "score": 1.0,
                    "recognizer": "officer:selected",
                }
                for place in changed
            ]
        stored.save(changed, changes, pii=pii)
    if changes.turns or changes.passages:
        from capture.jobs import enqueue_vectors

        turns, passages = [str(pk) for pk in changes.turns], sorted(changes.passages)
        transaction.on_commit(lambda: enqueue_vectors(turns, passages))
    return changes


def _open(mask: UncertainMask) -> UncertainMask:
    """The row, locked behind its conversation.

    Raises:
        NotDecided: it is not open any more.
    """
    Conversation.objects.select_for_update().get(pk=mask.conversation_id)
    locked = (
        UncertainMask.objects.select_related("assistant", "conversation", "decided_by")
        .select_for_update(of=("self",))
        .get(pk=mask.pk)
    )
    if locked.state != _STATES.OPEN:
        who = f" by {locked.decided_by}" if locked.decided_by else ""
        raise NotDecided(f"It was decided already{who}: {locked.get_state_display().lower()}.")
    if locked.expires_at <= timezone.now():
        raise NotDecided("Its time is over: the value may not be used any more, and the mask stays.")
    return locked


def _close(mask: UncertainMask, state: str, actor: User | None) -> None:
    KeptSpelling.objects.filter(mask=mask).delete()
    mask.state, mask.decided_at, mask.decided_by = state, timezone.now(), actor
    mask.save(update_fields=["state", "decided_at", "decided_by"])


def _spellings(mask: UncertainMask) -> dict[tuple[Any, str], list[str]]:
    try:
        return {
            (row.turn_id, row.field): [str(form) for form in json.loads(decrypt(row.forms))]
            for row in mask.spellings.order_by("pk")
        }
    except PayloadUnreadable:
        raise NotDecided("No key opens its value. Put the old key behind the new one in RATCHET_DATA_KEY.") from None


def _spellings_in_order(kept: Mapping[tuple[Any, str], Sequence[str]]) -> list[str]:
    counts: dict[str, int] = {}
    for forms in kept.values():
        for form in forms:
            counts[form] = counts.get(form, 0) + 1
    return sorted(counts, key=lambda form: -counts[form])


def _list(name: Any, mask: UncertainMask, actor: User) -> None:
    forms = _spellings_in_order(_spellings(mask))
    if not forms:
        raise NotDecided("Its value is gone, so it cannot be put on a list.")
    for form in forms[:20]:
        _list_value(name, mask.assistant, form, actor)


def _list_value(name: Any, assistant: Assistant, value: str, actor: User) -> None:
    try:
        add_value(assistant=assistant, name=name, value=value, actor=actor, reason="Decided on the review page.")
    except ValidationError as error:
        raise NotDecided("It cannot be put on the list: " + " ".join(error.messages)) from None


def _refuse_denied(assistant: Assistant, forms: Sequence[str]) -> None:
    folded = " ".join(" ".join(form.split()).casefold() for form in forms)
    for value in policy_of(assistant).deny:
        if value.casefold() in folded and any(pattern_of(value).search(form) for form in forms):
            raise NotDecided("It holds a value of the deny list. Take that off the list first, or allow it here.")


def _table(conversation: Conversation) -> EntityTable:
    key = entities_key(conversation.assistant_id, conversation.external_id)
    return EntityTable.from_dict(conversation.entities, key=key)


def _target(mask: UncertainMask) -> str:
    return f"{mask.placeholder} ({mask.pk})"

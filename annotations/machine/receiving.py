"""From a request to the table of machine labels: validated, scrubbed, stored once under the client's id.

Labels without an explanation on turns that only people settle go in with one statement. The others go turn by turn,
each in a transaction of its own: an explanation is masked with the table of its conversation, and a label that counts
settles its turn under the turn's lock, as a person's does.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction
from pydantic import ValidationError

from annotations import scrubbing
from annotations.choices import Reason
from annotations.errors import CannotScrub, ItemGone
from annotations.machine.counting import settled_by_machines
from annotations.machine.models import MachineLabel
from annotations.machine.payloads import MachineLabelItem
from annotations.settling import locked_turn, settle
from assistants.errors import ApiError, FieldError
from assistants.models import ApiKey, Assistant
from capture.models import Turn
from capture.naming import is_plain
from capture.payloads import field_errors
from capture.receiving import ItemResult, Status
from capture.vault import keyed_hash, stored_id

MAX_EXPLAINED = 100_000
"""Characters of explanations in one request: they are masked while the caller waits."""
MAX_WITH_EXPLANATION = 100
"""Items with an explanation in one request: masking one takes a while however short it is."""
_NO_TURN: FieldError = {"field": "turn", "message": "There is no such turn, or it has not been scrubbed yet"}
_SPEAKING = "This looks like somebody's address or number; name the program"
_OTHER: FieldError = {"field": "id", "message": "This id was used before with other content"}


@dataclass(frozen=True)
class _Read:
    """A valid item with the row that it becomes."""

    place: int
    item: MachineLabelItem
    row: MachineLabel


def receive_labels(*, assistant: Assistant, api_key: ApiKey | None, items: Sequence[Any]) -> list[ItemResult]:
    """Stores labels of programs and judges; one result per item, in order.

    An id that is known with the same content is a duplicate, with other content a conflict; neither changes anything.

    Raises:
        assistants.errors.ApiError: 413, more than `MAX_WITH_EXPLANATION` items with an explanation or `MAX_EXPLAINED`
            characters of them; nothing is stored. 503, they could not be checked for personal data. Labels of turns
            before that one stay: send the same again.
    """
    results: list[ItemResult | None] = [None] * len(items)
    read = _read(assistant, api_key, items, results)
    explained = [len(one.item.explanation) for one in read if one.item.explanation]
    if len(explained) > MAX_WITH_EXPLANATION:
        raise ApiError(
            413,
            detail=f"A request holds at most {MAX_WITH_EXPLANATION:,} labels with an explanation. Send it in parts.",
        )
    if sum(explained) > MAX_EXPLAINED:
        raise ApiError(413, detail=f"A request holds at most {MAX_EXPLAINED:,} characters of explanations in all.")
    known = _digests(assistant, [one.row.client_id for one in read])
    fresh = [one for one in read if one.row.client_id not in known]
    counted = settled_by_machines([one.row.turn_id for one in fresh])
    by_turn: dict[uuid.UUID, list[_Read]] = {}
    plain: list[_Read] = []
    for one in fresh:
        if one.item.explanation or one.row.turn_id in counted:
            by_turn.setdefault(one.row.turn_id, []).append(one)
        else:
            plain.append(one)
    gone = _store_plain(plain)
    for rows in by_turn.values():
        gone |= _store_on_turn(rows)
    stored = _digests(assistant, [one.row.client_id for one in read])
    for one in read:
        results[one.place] = _result(one, stored.get(one.row.client_id), erased=one.row.turn_id in gone)
    return [result for result in results if result is not None]


def _read(
    assistant: Assistant, api_key: ApiKey | None, items: Sequence[Any], results: list[ItemResult | None]
) -> list[_Read]:
    """The items that can be stored; what is wrong with the others goes into ``results``."""
    parsed: list[tuple[int, MachineLabelItem]] = []
    for place, raw in enumerate(items):
        try:
            parsed.append((place, MachineLabelItem.model_validate(raw)))
        except ValidationError as error:
            results[place] = ItemResult(_shown_id(raw), "invalid", field_errors(error))
    turns = turns_named(assistant, [item.turn for _, item in parsed])
    read = []
    for place, item in parsed:
        turn = turns.get(item.turn)
        if turn is None:
            results[place] = ItemResult(item.id, "invalid", [_NO_TURN])
            continue
        if wrong := [name for name in ("name", "version") if not is_plain(getattr(item, name))]:
            results[place] = ItemResult(
                _shown_id(items[place]), "invalid", [{"field": name, "message": _SPEAKING} for name in wrong]
            )
            continue
        row = MachineLabel(
            assistant=assistant,
            turn=turn,
            api_key=api_key,
            client_id=stored_id(item.id),
            # Keyed, as for turns: an open hash of a short text can be guessed. By our id of the turn: it has several.
            payload_digest=keyed_hash(
                "machine label", item.model_copy(update={"turn": str(turn.pk)}).canonical()
            ).hex(),
            kind=item.kind,
            name=item.name,
            version=item.version,
            verdict=item.verdict or "",
            score=item.score,
            reasons=[reason for reason in Reason.values if reason in item.reasons],
        )
        read.append(_Read(place, item, row))
    return read


def turns_named(assistant: Assistant, names: Sequence[str]) -> dict[str, Turn]:
    """{as the client named it: turn} of scrubbed turns, by the client's id (of a turn or completion) or by ours."""
    by_id = {name: stored_id(name) for name in dict.fromkeys(names)}
    ours = {name: uuid.UUID(name) for name in by_id if _is_uuid(name)}
    turns = Turn.objects.of(assistant).only("pk", "client_id", "assistant_id", "conversation_id")
    theirs = {turn.client_id: turn for turn in turns.filter(client_id__in=by_id.values())}
    found = {name: theirs[key] for name, key in by_id.items() if key in theirs}
    if missing := {name: pk for name, pk in ours.items() if name not in found}:
        by_pk = turns.in_bulk(list(missing.values()))
        found |= {name: by_pk[pk] for name, pk in missing.items() if pk in by_pk}
    return found


@transaction.atomic
def _store_plain(read: Sequence[_Read]) -> set[uuid.UUID]:
    """Returns the turns that were erased meanwhile."""
    wanted = {one.row.turn_id for one in read}
    locked = Turn.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=wanted).order_by("pk")
    there = set(locked.values_list("pk", flat=True))
    # Who comes second with an id is left out silently; the rows say afterwards whose it is.
    MachineLabel.objects.bulk_create(
        [one.row for one in read if one.row.turn_id in there], ignore_conflicts=True, batch_size=500
    )
    return wanted - there


def _store_on_turn(read: Sequence[_Read]) -> set[uuid.UUID]:
    """Labels of one turn, of which some have an explanation or count. Returns the turn if it was erased meanwhile."""
    try:
        with transaction.atomic():
            turn = locked_turn(read[0].row.turn)
            said = scrubbing.typed(turn=turn, texts=[one.item.explanation for one in read])
            for one, text in zip(read, said.texts, strict=True):
                one.row.explanation = text[: MachineLabel._meta.get_field("explanation").max_length]
            MachineLabel.objects.bulk_create([one.row for one in read], ignore_conflicts=True)
            _open_review(turn, read, said)
            if settled_by_machines([turn.pk]):
                settle(turn)
    except ItemGone:
        return {read[0].row.turn_id}
    except CannotScrub:
        raise ApiError(
            503,
            detail="Explanations could not be checked for personal data just now. Send the same again.",
            headers={"Retry-After": "10"},
        ) from None
    return set()


def _open_review(turn: Turn, read: Sequence[_Read], said: scrubbing.Typed) -> None:
    """Of what is uncertain in the explanations that were stored: one whose id was known by then is nowhere."""
    if not any(said.found):
        return
    stored = set(MachineLabel.objects.filter(pk__in=[one.row.pk for one in read]).values_list("pk", flat=True))
    found = [part if one.row.pk in stored else [] for one, part in zip(read, said.found, strict=True)]
    replace(said, found=found).note(turn, *(f"machine_labels.{one.row.pk}.explanation" for one in read))


def _digests(assistant: Assistant, ids: Sequence[str]) -> dict[str, tuple[uuid.UUID, str]]:
    """{client id: (our id of the label, digest)} of what is stored."""
    rows = MachineLabel.objects.of(assistant).filter(client_id__in=ids).order_by()
    return {name: (pk, digest) for pk, name, digest in rows.values_list("pk", "client_id", "payload_digest")}


def _result(one: _Read, stored: tuple[uuid.UUID, str] | None, *, erased: bool) -> ItemResult:
    if stored is None or erased:
        return ItemResult(one.item.id, "invalid", [_NO_TURN])
    pk, digest = stored
    status: Status = "created" if pk == one.row.pk else "duplicate"
    if status == "duplicate" and digest != one.row.payload_digest:
        return ItemResult(one.item.id, "conflict", [_OTHER])
    return ItemResult(one.item.id, status)


def _is_uuid(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4 and all(c in "0123456789abcdef-" for c in text.lower())


def _shown_id(raw: Any) -> str:
    """The id of an item that could not be taken, if it is one that may be shown."""
    given = raw.get("id") if isinstance(raw, dict) else None
    return given if isinstance(given, str) and len(given) <= 200 and given.isprintable() else ""

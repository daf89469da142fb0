"""Batches into capture: encrypted and durable when a call returns. Waits while the quarantine is full."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection
from pydantic import ValidationError

from assistants.errors import ApiError, FieldError
from assistants.models import Assistant
from capture.imports.outcome import CONFLICT
from capture.imports.units import Payload
from capture.models import Quarantine, Receipt, Turn
from capture.payloads import FeedbackItem, TurnItem, field_errors
from capture.receiving import NO_TURN, ItemResult, payload_digest, receive_feedback, receive_turns
from capture.vault import stored_id

_INDEX = re.compile(r"\.\d+(?=\.|$)")
_RETRIES = 6
MAX_SEEN = 500_000
"""Turns that a dry run tells repeats by: some 150 MB."""
_HINT_AFTER = 60.0
"""Seconds without any progress of the quarantine, after which a hint is due."""


@dataclass(frozen=True)
class Outcome:
    """``reason`` when refused. ``stored``: the turn is there, though perhaps with other content than this."""

    status: Literal["new", "known", "refused"]
    client_id: str = ""
    reason: str = ""
    stored: bool = True


class Poster(Protocol):
    """Where batches go. One outcome per item, in order."""

    def turns(self, items: list[Payload]) -> list[Outcome]: ...

    def feedback(self, items: list[Payload]) -> list[Outcome]: ...


class LivePoster:
    """Posts to capture.

    Args:
        max_waiting: items in quarantine (of all assistants) from which on it waits.
        say: tells the user why it waits.
        client: what turns name as the program that posted them.
    """

    def __init__(
        self,
        assistant: Assistant,
        *,
        max_waiting: int,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        client: str = "import",
    ) -> None:
        self._assistant, self._limit, self._say, self._sleep = assistant, max_waiting, say, sleep
        self._client = client

    def turns(self, items: list[Payload]) -> list[Outcome]:
        return self._post(
            lambda: receive_turns(assistant=self._assistant, api_key=None, items=items, client=self._client), items
        )

    def feedback(self, items: list[Payload]) -> list[Outcome]:
        return self._post(lambda: receive_feedback(assistant=self._assistant, api_key=None, items=items), items)

    def _post(self, post: Callable[[], Sequence[ItemResult]], items: list[Payload]) -> list[Outcome]:
        """Again after a lost connection: what had been stored by then is known, so nothing is doubled.

        Raises:
            OperationalError: the database stays away.
        """
        attempt = 0
        while True:
            try:
                self._wait_for_room(len(items))
                return [_outcome(result) for result in post()]
            except ApiError as error:
                if error.status_code != 503:
                    raise
                self._sleep(_seconds(error.headers.get("Retry-After")))
            except (OperationalError, InterfaceError):
                if attempt == _RETRIES or connection.in_atomic_block:
                    raise
                connection.close()
                self._say(f"The database does not answer; trying again in {2**attempt} s.")
                self._sleep(2.0**attempt)
                attempt += 1

    def _wait_for_room(self, wanted: int) -> None:
        """Until the quarantine has room for the batch; an empty one always has."""
        waiting = self._waiting()
        if waiting + wanted <= self._limit or not waiting:
            return
        self._say(f"{waiting:,} items wait to be scrubbed; going on when there is room.")
        target = max(0, self._limit - max(wanted, self._limit // 10))
        least, still = waiting, 0.0
        while waiting > target:
            self._sleep(1.0)
            waiting = self._waiting()
            still = 0.0 if waiting < least else still + 1.0
            least = min(least, waiting)
            if still == _HINT_AFTER:
                self._say("Nothing is scrubbed. Start the worker (manage.py up), or run manage.py scrub beside this.")

    def _waiting(self) -> int:
        return Quarantine.objects.waiting().order_by()[: self._limit + 1].count()


class DryPoster:
    """Checks as capture would, and writes nothing. Of what a run has met it remembers `MAX_SEEN` turns."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        self._seen: dict[str, str] = {}  # digest by receipt id

    def turns(self, items: list[Payload]) -> list[Outcome]:
        known = self._receipts([str(item.get("id")) for item in items])
        return [self._turn(item, known) for item in items]

    def feedback(self, items: list[Payload]) -> list[Outcome]:
        names = [str(item.get("turn")) for item in items]
        known = self._receipts(names)
        uuids = [name for name in names if _is_uuid(name)]
        here = {str(pk) for pk in Turn.objects.of(self._assistant).filter(pk__in=uuids).values_list("pk", flat=True)}
        return [self._feedback(item, known, here) for item in items]

    def _turn(self, item: Payload, known: Mapping[str, str]) -> Outcome:
        shown = _shown(item.get("id"))
        try:
            valid = TurnItem.model_validate(item)
        except ValidationError as error:
            return Outcome("refused", shown, _reason(field_errors(error)), stored=False)
        receipt, digest = stored_id(valid.id), payload_digest(valid.canonical())
        before = known.get(receipt) or self._seen.get(receipt)
        if before is None:
            if len(self._seen) < MAX_SEEN:
                self._seen[receipt] = digest
            return Outcome("new", shown)
        return Outcome("known", shown) if before == digest else Outcome("refused", shown, CONFLICT)

    def _feedback(self, item: Payload, known: Mapping[str, str], here: set[str]) -> Outcome:
        shown, turn = _shown(item.get("id")), str(item.get("turn"))
        try:
            FeedbackItem.model_validate(item)
        except ValidationError as error:
            return Outcome("refused", shown, _reason(field_errors(error)), stored=False)
        receipt = stored_id(turn)
        if receipt in known or receipt in self._seen or turn.lower() in here or len(self._seen) == MAX_SEEN:
            return Outcome("new", shown)
        return Outcome("refused", shown, _reason([NO_TURN]), stored=False)

    def _receipts(self, names: Sequence[str]) -> dict[str, str]:
        kept = [stored_id(name) for name in names if name.isprintable()]
        found = Receipt.objects.filter(assistant=self._assistant, client_id__in=kept)
        return dict(found.values_list("client_id", "payload_digest"))


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name.lower()
    except ValueError:
        return False


def _outcome(result: ItemResult) -> Outcome:
    if result.status == "invalid":
        return Outcome("refused", result.client_id, _reason(result.errors), stored=False)
    if result.status == "conflict":
        return Outcome("refused", result.client_id, CONFLICT)
    return Outcome("new" if result.status == "created" else "known", result.client_id)


def _reason(errors: Sequence[FieldError]) -> str:
    """The first thing that is wrong, without the places in lists, so that equal reasons count together."""
    if not errors:
        return "not valid"
    field, message = errors[0]["field"], errors[0]["message"]
    return f"{_INDEX.sub('', field)}: {message}" if field else message


def _shown(client_id: Any) -> str:
    return client_id if isinstance(client_id, str) and len(client_id) <= 200 and client_id.isprintable() else ""


def _seconds(retry_after: str | None) -> float:
    return min(max(float(retry_after), 1.0), 60.0) if retry_after and retry_after.isdecimal() else 2.0

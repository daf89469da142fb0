"""Old conversations go by themselves: as many days after their last turn as the assistant keeps them.

What people have worked on stays: a conversation with a label, a verdict, an item in a queue or a pair that was compared
blind is kept whole, and so is one that a frozen dataset was made of, also when its verdict was taken away since: an
erasure finds that dataset's rows through the turn.

Turns are walked from the oldest on, a page at a time, along the index that lists them by time. Asking which
conversations have no young turn read all conversations of the assistant, for each batch anew, and as long when none was
due. Partitions by month would not help: a month's partition cannot be dropped while something in it was worked on, or
belongs to an assistant that keeps it longer.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from annotations.comparing.models import ComparisonPair
from annotations.models import Annotation, QueueItem, Resolution
from assistants.models import Assistant
from assistants.services import audit
from capture.erasing import drop_empty_conversations, erase_turns, keep_ids_unreadable
from capture.models import Conversation, Turn
from serving.experiments.units import forget_units_of
from training.models import Example

logger = logging.getLogger(__name__)
PAGE = 500
"""Turns that are looked at at a time."""
MOST_TURNS = 500
"""Turns that one transaction deletes: what it locks and how long others could wait for it."""
SECONDS = 20.0
"""Of one job: others of the worker, guardrails of experiments among them, wait behind it."""


@dataclass(frozen=True)
class Place:
    """How far a walk has come: everything of the assistant up to this turn, and all assistants before it."""

    assistant: int
    asked_at: datetime
    turn: uuid.UUID


def forget_old(after: Place | None = None, *, seconds: float = SECONDS) -> tuple[dict[str, int], Place | None]:
    """Of every assistant that keeps turns for a time, from ``after`` on.

    Returns {slug: turns that went} and where to go on, or None when nothing is left. Killed at any moment: what went is
    gone, and the rest is found again.
    """
    end, found = time.monotonic() + seconds, dict[str, int]()
    assistants = Assistant.objects.exclude(keep_turns_days=None).order_by("pk")
    for assistant in assistants.filter(pk__gte=after.assistant if after else 0):
        start = after if after and after.assistant == assistant.pk else None
        gone, rest = forget_old_of(assistant, start, end=end)
        if gone:
            found[assistant.slug] = gone
        if rest is not None:
            return found, rest
    return found, None


def forget_old_of(
    assistant: Assistant, after: Place | None = None, *, end: float | None = None
) -> tuple[int, Place | None]:
    """In batches, each in a transaction, until ``end`` (of `time.monotonic`); returns how many turns went, and where to
    go on. Posts of the same ids stay known."""
    gone, rest = 0, None
    try:
        for page in pages(assistant, after):
            done, whole = _forget(assistant, page.due, end)
            gone += done
            if whole:
                after = page.place
            if end is not None and time.monotonic() >= end:
                rest = after or Place(assistant.pk, datetime.min.replace(tzinfo=UTC), uuid.UUID(int=0))
                break
    finally:
        if gone:
            audit(
                assistant=assistant, actor=None, action="turns.forgotten", target=assistant.slug,
                details={"turns": gone, "keep_turns_days": assistant.keep_turns_days},
            )  # fmt: skip
            logger.info("%s: %d old turns were forgotten", assistant.slug, gone)
    return gone, rest


# --- Finding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """Old turns in order of time: how many in which month, the conversations among theirs that may go, and the last."""

    turns: list[tuple[datetime, int]]
    due: list[int]
    place: Place


def forgotten_before(assistant: Assistant) -> datetime:
    """Of the day, so that a walk through much, and those who ask how much is left, have one limit."""
    assert assistant.keep_turns_days is not None
    today = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=assistant.keep_turns_days)


def pages(assistant: Assistant, after: Place | None = None) -> Iterator[Page]:
    """Turns older than the assistant keeps them, oldest first, `PAGE` at a time."""
    if assistant.keep_turns_days is None:
        return
    limit = forgotten_before(assistant)
    old = Turn.objects.of(assistant).filter(asked_at__lt=limit).order_by("asked_at", "id")
    while True:
        rows = old
        if after is not None:
            later = Q(asked_at__gt=after.asked_at) | Q(asked_at=after.asked_at, id__gt=after.turn)
            rows = old.filter(later, asked_at__gte=after.asked_at)
        found = list(rows.values_list("asked_at", "conversation", "pk")[:PAGE])
        if not found:
            return
        after = Place(assistant.pk, found[-1][0], found[-1][2])
        due = due_among(assistant, {conversation for _, conversation, _ in found}, limit)
        yield Page([(asked_at, conversation) for asked_at, conversation, _ in found], due, after)


def due_among(assistant: Assistant, conversations: Collection[int], limit: datetime) -> list[int]:
    """Those whose last turn is older and on which nobody has worked."""
    return list(_due(assistant, conversations, limit).values_list("pk", flat=True))


def _due(assistant: Assistant, conversations: Collection[int], limit: datetime) -> QuerySet[Conversation]:
    models = (Annotation, Resolution, QueueItem, ComparisonPair, Example)
    worked = [model._default_manager.filter(turn__conversation=OuterRef("pk")) for model in models]
    young = Turn.objects.filter(conversation=OuterRef("pk"), asked_at__gte=limit).order_by()
    rows = Conversation.objects.filter(assistant=assistant, pk__in=list(conversations)).order_by("pk")
    return rows.filter(~Exists(young), *(~Exists(work) for work in worked))


# --- Deleting ---------------------------------------------------------------------------------------------------------


def _forget(assistant: Assistant, conversations: Collection[int], end: float | None) -> tuple[int, bool]:
    """How many turns went, and whether nothing is left of these conversations."""
    gone = 0
    if not conversations:
        return gone, True
    limit = forgotten_before(assistant)
    # Asked anew for each lot: somebody may label one meanwhile, or go on with a conversation.
    still = _due(assistant, conversations, limit).order_by().values("pk")
    turns = Turn.objects.of(assistant).filter(conversation__in=still).order_by()
    while rows := list(turns.values_list("pk", "client_id")[:MOST_TURNS]):
        keep_ids_unreadable(assistant, [name for _, name in rows])
        with transaction.atomic():
            forget_units_of([key for key, _ in rows])
            erase_turns(assistant, [key for key, _ in rows])
        gone += len(rows)
        if end is not None and time.monotonic() >= end and len(rows) == MOST_TURNS:
            return gone, False
    with transaction.atomic():
        drop_empty_conversations(assistant, conversations)
    return gone, True

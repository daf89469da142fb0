"""Old conversations go by themselves: as many days after their last turn as the assistant keeps them.

What people have worked on stays: a conversation with a label, a verdict, an open item or a pair that was compared blind
is kept whole, since data of training has its own life and its own erasure. Rows of datasets that were made from
unlabelled turns do not exist: only verdicts and preferences become rows.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from annotations.comparing.models import ComparisonPair
from annotations.models import Annotation, QueueItem, Resolution
from assistants.models import Assistant
from assistants.services import audit
from capture.erasing import drop_empty_conversations, erase_turns, keep_ids_unreadable
from capture.models import Conversation, Turn
from serving.experiments.units import forget_units_of

logger = logging.getLogger(__name__)
BATCH = 200
"""Conversations in one transaction's reach."""
MOST_TURNS = 2000
SECONDS = 300.0
"""Of one night's run on one assistant: the job queue ends jobs at ten minutes, and the next night goes on."""


def forget_old() -> dict[str, int]:
    """Of every assistant that keeps turns for a time; {slug: turns that went}."""
    found = {}
    for assistant in Assistant.objects.exclude(keep_turns_days=None):
        if gone := forget_old_of(assistant):
            found[assistant.slug] = gone
    return found


def due(assistant: Assistant) -> QuerySet[Conversation]:
    """Conversations whose last turn is too old and on which nobody has worked."""
    assert assistant.keep_turns_days is not None
    limit = timezone.now() - timedelta(days=assistant.keep_turns_days)
    models = (Annotation, Resolution, QueueItem, ComparisonPair)
    worked = [model._default_manager.filter(turn__conversation=OuterRef("pk")) for model in models]
    turns = Turn.objects.filter(conversation=OuterRef("pk")).order_by()
    # Whether a turn exists is looked up by conversation and ends with the batch; the newest turn of each, which says
    # the same, was added up over all turns of the assistant, for each batch anew.
    rows = Conversation.objects.filter(Exists(turns), assistant=assistant)
    return rows.filter(~Exists(turns.filter(asked_at__gte=limit)), *(~Exists(work) for work in worked))


def forget_old_of(assistant: Assistant) -> int:
    """In batches, each in a transaction; killed in between, the next run goes on. Posts of the same ids stay known."""
    if assistant.keep_turns_days is None:
        return 0
    end, counts = time.monotonic() + SECONDS, Counter[str]()
    turns_gone = 0
    while time.monotonic() < end:
        conversations = list(due(assistant).order_by("pk").values_list("pk", flat=True)[:BATCH])
        if not conversations:
            break
        # Asked anew for each lot: somebody may label one meanwhile, or go on with a conversation.
        still = due(assistant).filter(pk__in=conversations).values("pk")
        turns = Turn.objects.of(assistant).filter(conversation__in=still).order_by()
        while rows := list(turns.values_list("pk", "client_id")[:MOST_TURNS]):
            keep_ids_unreadable(assistant, [name for _, name in rows])
            with transaction.atomic():
                forget_units_of([key for key, _ in rows])
                counts += erase_turns(assistant, [key for key, _ in rows])
            turns_gone += len(rows)
        with transaction.atomic():
            drop_empty_conversations(assistant, conversations)
    if turns_gone:
        audit(
            assistant=assistant, actor=None, action="turns.forgotten", target=assistant.slug,
            details={"turns": turns_gone, "keep_turns_days": assistant.keep_turns_days},
        )  # fmt: skip
        logger.info("%s: %d old turns were forgotten", assistant.slug, turns_gone)
    return turns_gone

"""Writes of the capture room that other rooms call."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib.auth.models import User
from django.db import transaction

from assistants.models import Assistant
from assistants.services import audit
from capture.models import Quarantine
from capture.receiving import ItemResult, receive_feedback, receive_turns
from capture.scrub import ScrubReport, scrub_item, scrub_waiting

__all__ = [
    "ItemResult",
    "ScrubReport",
    "delete_held",
    "receive_feedback",
    "receive_turns",
    "retry_held",
    "scrub_item",
    "scrub_waiting",
]


@transaction.atomic
def retry_held(*, assistant: Assistant, items: Collection[int], actor: User, reason: str = "") -> int:
    """Puts held items back in the line, and with them what else is held of their conversations; how many.

    A conversation goes back as a whole: feedback that waits for a held turn would be held again without it.
    """
    held = Quarantine.objects.held().filter(assistant=assistant)
    keys = set(held.filter(pk__in=items).values_list("conversation_key", flat=True))
    count = held.filter(conversation_key__in=keys).update(
        state=Quarantine.State.WAITING, attempts=0, error="", claimed_until=None
    )
    if count:
        audit(
            assistant=assistant, actor=actor, action="quarantine.retried", target=f"{count} items", reason=reason,
            details={"items": sorted(items)},
        )  # fmt: skip
        from capture.jobs import enqueue_scrub

        transaction.on_commit(enqueue_scrub)
    return count


@transaction.atomic
def delete_held(*, assistant: Assistant, items: Collection[int], actor: User, reason: str = "") -> int:
    """Destroys held payloads for good; how many. Their receipts stay, so that the same id is not taken again."""
    held = Quarantine.objects.held().filter(assistant=assistant, pk__in=items)
    count = held.delete()[0]
    if count:
        audit(
            assistant=assistant, actor=actor, action="quarantine.deleted", target=f"{count} items", reason=reason,
            details={"items": sorted(items)},
        )  # fmt: skip
    return count

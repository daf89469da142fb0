"""Drafts on the server: a form goes on where it was left, also on another machine.

What is typed is scrubbed when it becomes a label; until then it is encrypted, and only its author gets it back.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from annotations.drafts import Draft
from annotations.leases import holds_lease
from annotations.models import QueueItem, SavedDraft
from capture.vault import PayloadUnreadable, decrypt, encrypt

MAX_BYTES = 256 * 1024
"""Of one draft. More than a label may hold, so that nothing is lost while somebody shortens it."""
KEPT = timedelta(days=14)
_PURGED = 200


def save_draft(*, item: QueueItem, annotator: User, draft: Draft, at: float) -> bool:
    """Keeps the form as it stands; whether it was kept. Only somebody who works on the item has one: what arrives after
    the label has been submitted changes nothing. Of two browsers the one that sent last counts: clocks differ.

    Args:
        at: milliseconds since 1970 by the browser's clock, by which that browser tells whether its own draft is newer.
    """
    plain = json.dumps({"at": at, **asdict(draft)}).encode()
    if len(plain) > MAX_BYTES:
        return False
    now = timezone.now()
    with transaction.atomic():
        # A label or a skip that comes meanwhile waits, and then finds this draft to drop; one that was first has ended
        # the lease.
        locked = (
            QueueItem.objects.select_for_update(no_key=True).filter(pk=item.pk).values_list("pk", flat=True).first()
        )
        if locked is None or not holds_lease(item, annotator, lock=True):
            return False
        SavedDraft.objects.bulk_create(
            [SavedDraft(item=item, annotator=annotator, sealed=encrypt(plain), saved_at=now)],
            update_conflicts=True,
            unique_fields=["item", "annotator"],
            update_fields=["sealed", "saved_at"],
        )
    old = SavedDraft.objects.filter(saved_at__lt=now - KEPT).order_by("saved_at").values("pk")[:_PURGED]
    SavedDraft.objects.filter(pk__in=old).delete()
    return True


def saved_draft(item: QueueItem, annotator: User) -> tuple[Draft, float] | None:
    """The draft and the time of the browser that it came from; None where there is none, or no key opens it."""
    row = SavedDraft.objects.filter(item=item, annotator=annotator).first()
    if row is None:
        return None
    try:
        plain = json.loads(decrypt(row.sealed))
    except PayloadUnreadable:
        return None
    draft = Draft(
        choice=plain["choice"],
        reasons=tuple(plain["reasons"]),
        correction=plain["correction"],
        marks={int(rank): mark for rank, mark in plain["marks"].items()},
        note=plain["note"],
        missed=tuple(plain["missed"]),
    )
    return draft, float(plain["at"])


def drop_drafts(*, turn_id: UUID, annotator: User) -> None:
    """After the label has been stored, or the item was skipped."""
    SavedDraft.objects.filter(item__turn=turn_id, annotator=annotator).delete()

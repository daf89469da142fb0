"""Who works on what: leases of five minutes, so that no two people label the same item beyond its need.

A candidate is locked with ``FOR UPDATE SKIP LOCKED`` and then looked at again under the lock: the first look used the
statement's snapshot, which may miss a lease that was committed between the snapshot and the lock.

While somebody works on an item, the page fetches the one after it and leases it *ahead*. Such a lease counts like any
other, so an item is never given out beyond its need; but it keeps nobody waiting: who finds nothing else takes the item
over, and the page that had fetched it is told when it comes to show it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from annotations.errors import AlreadyDone, ItemGone
from annotations.gold import draws_gold, gold_left_for, is_gold
from annotations.models import Annotation, Assignment, AssignmentQuerySet, Queue, QueueItem, QueueItemQuerySet

LEASE = timedelta(minutes=5)
# Every miss means that another request took the item between two statements; each such request needs one miss at most.
_MAX_MISSES = 100


@transaction.atomic
def next_item(*, queue: Queue, annotator: User) -> QueueItem | None:
    """The item that this person shall label now, leased to them; None when nothing is left (or the queue is paused).

    Somebody who holds a live lease gets the same item again, so that a reload loses nothing.
    """
    if queue.paused:
        return None
    now = timezone.now()
    held = _held_item(queue, annotator, now)
    if held is not None:
        return held
    item = _new_item(queue, annotator, now) or _take_over(queue, annotator, now)
    if item is not None:
        lease_to(item=item, annotator=annotator)
    return item


@transaction.atomic
def item_ahead(*, queue: Queue, annotator: User, but: int) -> tuple[QueueItem, datetime] | None:
    """The item after the one on the screen, whose key is ``but``, leased ahead, and when that lease ends; None when
    nothing is free. At most one is held ahead: asked again, the same one comes."""
    if queue.paused:
        return None
    now = timezone.now()
    for lease in _leases(queue, annotator, now).exclude(item=but):
        if not _labelled(lease.item, annotator):
            return lease.item, lease.expires_at
    item = _new_item(queue, annotator, now, but=but)
    return None if item is None else (item, lease_to(item=item, annotator=annotator, ahead=True))


def renew_lease(*, item_id: int, annotator: User, queue: Queue | None = None) -> datetime:
    """Five more minutes, also after the lease has ended as long as the item still needs a label.

    Raises:
        ItemGone: the item is not there any more, or not in ``queue``.
        AlreadyDone: the lease had ended and others have labelled the item or are at it.
    """
    kept = _keep_lease(item_id, annotator, queue)
    return kept or _lease_anew(item_id, annotator, queue)


def _keep_lease(item_id: int, annotator: User, queue: Queue | None) -> datetime | None:
    """What `renew_lease` nearly always does, in one statement; None where the person holds no live lease.

    The item is locked by it as by everybody who gives out: who takes an item over that was only fetched ahead does so
    under that lock, and a lease that is gone when it is our turn is not there for the update.
    """
    now = timezone.now()
    ends = now + LEASE
    where = {"item": item_id, "queue": queue.pk if queue is not None else None, "annotator": annotator.pk}
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, {**where, "now": now, "ends": ends})
        return ends if cursor.fetchone() else None


_KEEP = """
    WITH item AS MATERIALIZED (
        SELECT id FROM annotations_queueitem
        WHERE id = %(item)s AND (%(queue)s::bigint IS NULL OR queue_id = %(queue)s) FOR UPDATE
    )
    UPDATE annotations_assignment AS lease SET expires_at = %(ends)s, ahead = false FROM item
    WHERE lease.item_id = item.id AND lease.annotator_id = %(annotator)s
        AND lease.skipped_at IS NULL AND lease.expires_at > %(now)s
    RETURNING 1
"""


@transaction.atomic
def _lease_anew(item_id: int, annotator: User, queue: Queue | None) -> datetime:
    items = QueueItem.objects.select_for_update().filter(pk=item_id)
    item = (items if queue is None else items.filter(queue=queue)).first()
    if item is None:
        raise ItemGone
    if not holds_lease(item, annotator) and not has_room(item, annotator) and not is_gold(item):
        raise AlreadyDone
    return lease_to(item=item, annotator=annotator)


def let_go(*, turn_id: UUID, annotator: User) -> set[int]:
    """Ends what this person has of a turn's items (leases, skips, saved drafts), in one statement. Returns the items
    whose lease was live. The caller holds the locks on the items."""
    with connection.cursor() as cursor:
        cursor.execute(_LET_GO, {"turn": turn_id, "annotator": annotator.pk, "now": timezone.now()})
        return {item for item, was_live in cursor.fetchall() if was_live}


_LET_GO = """
    WITH mine AS MATERIALIZED (SELECT id FROM annotations_queueitem WHERE turn_id = %(turn)s),
    drafts AS (
        DELETE FROM annotations_saveddraft
        WHERE annotator_id = %(annotator)s AND item_id IN (SELECT id FROM mine)
    )
    DELETE FROM annotations_assignment
    WHERE annotator_id = %(annotator)s AND item_id IN (SELECT id FROM mine)
    RETURNING item_id, skipped_at IS NULL AND expires_at > %(now)s
"""


@transaction.atomic
def release_lease(*, item_id: int, annotator: User, expires_at: datetime | None = None) -> None:
    """Gives an unfinished item back at once; without a lease nothing happens.

    With ``expires_at`` only that very lease is given back: the message of a page that is being left may arrive after
    the same person has opened the page again.
    """
    leases = Assignment.objects.filter(item=item_id, annotator=annotator, skipped_at=None)
    (leases if expires_at is None else leases.filter(expires_at=expires_at)).delete()


def lease_to(*, item: QueueItem, annotator: User, ahead: bool = False) -> datetime:
    """Writes the lease (the caller holds the lock on the item) and forgets an earlier skip."""
    expires_at = timezone.now() + LEASE
    Assignment.objects.bulk_create(
        [Assignment(item=item, annotator=annotator, expires_at=expires_at, ahead=ahead)],
        update_conflicts=True,
        unique_fields=["item", "annotator"],
        update_fields=["expires_at", "ahead", "skipped_at", "skipped_because"],
    )
    return expires_at


def holds_lease(item: QueueItem, annotator: User, *, lock: bool = False) -> bool:
    """``lock``: until the transaction ends nobody ends it; the caller holds the lock on the item."""
    rows = Assignment.objects.live().filter(item=item, annotator=annotator)
    rows = rows.select_for_update(no_key=True) if lock else rows
    return rows.values_list("pk", flat=True).first() is not None


def _leases(queue: Queue, annotator: User, now: datetime) -> AssignmentQuerySet:
    """This person's live leases on unfinished items; what is on a screen before what was fetched ahead."""
    live = Assignment.objects.live(now).filter(annotator=annotator, item__queue=queue)
    live = live.filter(Q(item__done=False) | Q(item__gold__isnull=False))
    return live.select_related("item").order_by("ahead", "-expires_at")


def _held_item(queue: Queue, annotator: User, now: datetime) -> QueueItem | None:
    assignment = _leases(queue, annotator, now).first()
    if assignment is None or _labelled(assignment.item, annotator):
        return None
    if assignment.ahead:
        # Under the lock of the item: somebody may be taking it over just now.
        look = transaction.savepoint()
        QueueItem.objects.select_for_update().get(pk=assignment.item_id)
        if not holds_lease(assignment.item, annotator):
            transaction.savepoint_rollback(look)
            return None
        transaction.savepoint_commit(look)
    lease_to(item=assignment.item, annotator=annotator)
    return assignment.item


def _new_item(queue: Queue, annotator: User, now: datetime, but: int = 0) -> QueueItem | None:
    """An item that this person does not work on yet, locked; sometimes one with a known answer instead."""
    item = _claim(queue, annotator, now, wait=False, but=but) or _claim(queue, annotator, now, wait=True, but=but)
    if item is not None and draws_gold(queue, annotator):
        item = gold_left_for(queue, annotator).exclude(pk=but).order_by("?").first() or item
    return item


def _take_over(queue: Queue, annotator: User, now: datetime) -> QueueItem | None:
    """An item that is only missing because somebody else has fetched it ahead: their lease ends here."""
    others = Assignment.objects.live(now).filter(ahead=True, item=OuterRef("pk")).exclude(annotator=annotator)
    items = QueueItem.objects.filter(Exists(others), queue=queue).left_for(annotator)
    item = items.with_room(annotator, now, over_ahead=True).order_by("pk").select_for_update(of=("self",)).first()
    if item is None:
        return None
    now = timezone.now()
    if not QueueItem.objects.filter(pk=item.pk, done=False).with_room(annotator, now, over_ahead=True).exists():
        return None  # shown meanwhile
    ahead = Assignment.objects.live(now).filter(item=item, ahead=True).exclude(annotator=annotator)
    if not has_room(item, annotator):
        ahead.filter(pk__in=ahead.order_by("expires_at").values("pk")[:1]).delete()
    return item


def _claim(queue: Queue, annotator: User, now: datetime, *, wait: bool, but: int) -> QueueItem | None:
    """The first free item, locked. ``wait`` also waits for items that somebody else has locked just now: with them
    skipped, the last items of a queue would seem to be gone.

    What was locked in vain is let go at once (going back to a savepoint does that): else two people could wait for
    each other's misses.
    """
    missed = [but]
    for _ in range(_MAX_MISSES):
        look = transaction.savepoint()
        item = _candidates(queue, annotator, now, missed).select_for_update(of=("self",), skip_locked=not wait).first()
        if item is None or has_room(item, annotator):
            transaction.savepoint_commit(look)
            return item
        transaction.savepoint_rollback(look)
        missed.append(item.pk)
    return None


def _candidates(queue: Queue, annotator: User, now: datetime, but: Iterable[int]) -> QueueItemQuerySet:
    items = QueueItem.objects.filter(queue=queue).left_for(annotator).with_room(annotator, now)
    return items.exclude(pk__in=list(but)).order_by("pk")


def has_room(item: QueueItem, annotator: User) -> bool:
    free = QueueItem.objects.filter(pk=item.pk, done=False).with_room(annotator, timezone.now())
    return free.exists()


def _labelled(item: QueueItem, annotator: User) -> bool:
    return Annotation.objects.current().filter(turn=item.turn_id, annotator=annotator).exists()

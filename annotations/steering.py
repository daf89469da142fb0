"""What admins do to running work: pause, open again, hand over, ask for one more label. Every act is audited."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from annotations.leases import LEASE
from annotations.models import Annotation, Assignment, Queue, QueueItem
from annotations.people import workers_of
from assistants.services import audit

MAX_LABELS = 9
MAX_OPENED = 10_000


@transaction.atomic
def set_paused(*, queue: Queue, actor: User, paused: bool) -> None:
    """While a queue is paused nobody gets new items; who is at one may finish it. Nothing changes twice."""
    if Queue.objects.filter(pk=queue.pk, paused=not paused).update(paused=paused):
        action = "queue.paused" if paused else "queue.reopened"
        audit(assistant=queue.assistant, actor=actor, action=action, target=str(queue))
    queue.paused = paused


@transaction.atomic
def hand_over(*, queue: Queue, actor: User, person: User, to: User | None = None) -> int:
    """Ends what ``person`` has open in the queue, and gives it to ``to`` (to whoever comes next, without one).

    Where the queue has people of its own, ``to`` takes the person's place among them. Labels and skips stay. What
    ``to`` has labelled or skipped already is free for everybody. Returns how many items were open.

    Raises:
        ValidationError: ``to`` does not label for the assistant, or the queue would be left without people, which
            would open it to everybody.
    """
    if to is not None and (to == person or not workers_of(queue.assistant).filter(pk=to.pk).exists()):
        raise ValidationError({"to": ["Choose somebody else who labels for this assistant."]})
    Queue.objects.select_for_update(no_key=True).get(pk=queue.pk)
    people = set(queue.people.values_list("pk", flat=True))
    if people == {person.pk} and to is None:
        raise ValidationError({"to": ["Say to whom: without any people the queue would be open to everybody."]})
    if person.pk in people:
        queue.people.remove(person)
    if people and to is not None:
        queue.people.add(to)
    # Locked as giving out does, so that nobody counts a lease that is just moving.
    open_leases = Assignment.objects.live().filter(item__queue=queue, annotator=person)
    items = list(QueueItem.objects.select_for_update().filter(pk__in=open_leases.values("item")).order_by("pk"))
    opened = Assignment.objects.live().filter(item__in=items, annotator=person).delete()[0]
    if to is not None:
        _reserve([item for item in items if not item.done], to)
    audit(
        assistant=queue.assistant, actor=actor, action="queue.handed_over", target=str(queue),
        details={"from": person.get_username(), "to": to.get_username() if to else None, "open": opened},
    )  # fmt: skip
    return opened


@transaction.atomic
def ask_again(*, queue: Queue, actor: User) -> int:
    """Opens every disagreement of the queue for one more label, up to nine in all. Returns how many were opened."""
    split = QueueItem.objects.filter(queue=queue, labels_needed__lt=MAX_LABELS, gold=None).split()
    keys = list(split.order_by("pk").values_list("pk", flat=True)[:MAX_OPENED])
    locked = QueueItem.objects.select_for_update().filter(pk__in=keys, done=True).order_by("pk")
    opened = QueueItem.objects.filter(pk__in=[item.pk for item in locked]).update(
        labels_needed=F("labels_done") + 1, done=False
    )
    if opened:
        audit(
            assistant=queue.assistant, actor=actor, action="queue.asked_again", target=str(queue),
            details={"items": opened},
        )  # fmt: skip
    return opened


def _reserve(items: list[QueueItem], to: User) -> None:
    """Leases for somebody who is not at the page: as long as any, so that nothing lies idle if they do not come."""
    labelled = Annotation.objects.current().filter(turn__in=[item.turn_id for item in items], annotator=to)
    theirs = Assignment.objects.filter(Q(item__in=items), annotator=to)
    done, known = set(labelled.values_list("turn", flat=True)), set(theirs.values_list("item", flat=True))
    ends = timezone.now() + LEASE
    Assignment.objects.bulk_create(
        Assignment(item=item, annotator=to, expires_at=ends)
        for item in items
        if item.turn_id not in done and item.pk not in known
    )

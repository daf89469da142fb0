"""Items with known answers: a reviewer's verdict becomes the answer, and everybody gets the item once, unannounced."""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from annotations.errors import ItemGone, NotSettled, TooManyGold
from annotations.models import Annotation, GoldItem, Queue, QueueItem, Resolution
from annotations.settling import locked_turn, settle
from assistants.services import audit
from capture.models import Turn
from generation.prompts import is_decline

MAX_GOLD = 500
"""Of one queue: what is left of them for a person is shuffled for each item that is drawn."""


@transaction.atomic
def mark_gold(*, item: QueueItem, reviewer: User) -> GoldItem:
    """Makes the turn's resolution the known answer of this item; done again it takes the resolution as it is now.

    The resolution becomes the reviewer's own word, so that no later label changes what everybody is measured by.

    Raises:
        ItemGone: the turn was erased, or taken out of the queue.
        NotSettled: the turn has no verdict yet.
        TooManyGold: the queue has `MAX_GOLD` already.
    """
    turn = locked_turn(item.turn)
    if not QueueItem.objects.filter(pk=item.pk).exists():
        raise ItemGone
    resolution = Resolution.objects.filter(turn=turn).first()
    if resolution is None:
        raise NotSettled
    if GoldItem.objects.filter(item__queue=item.queue_id).exclude(item=item).count() >= MAX_GOLD:
        raise TooManyGold(MAX_GOLD)
    own_word = resolution.how == Resolution.How.ADJUDICATED
    if not own_word:
        Resolution.objects.filter(pk=resolution.pk).update(how=Resolution.How.ADJUDICATED, resolved_by=reviewer)
    QueueItem.objects.filter(turn=turn).update(done=True)
    house = turn.assistant
    declines = any(
        is_decline(resolution.response, said) for said in (house.decline_sentence, house.handoff_sentence) if said
    )
    known: dict[str, Any] = {
        "verdict": resolution.verdict,
        "reasons": resolution.reasons,
        "declines": bool(resolution.response) and declines,
        "relevant_ranks": resolution.relevant_ranks,
        "marked_by": reviewer,
    }
    created = {**known, "adjudicates": not own_word}
    gold, _ = GoldItem.objects.update_or_create(item=item, defaults=known, create_defaults=created)
    audit(
        assistant=house, actor=reviewer, action="gold.marked", target=str(turn.pk),
        details={"queue": item.queue_id, "verdict": resolution.verdict},
    )  # fmt: skip
    return gold


@transaction.atomic
def unmark_gold(*, item: QueueItem, reviewer: User) -> None:
    """The item is an ordinary one again; labels on it stay. Without a mark nothing happens.

    Where the mark alone made the verdict a reviewer's word, the labels decide again: it may be done as it was, want
    more labels, or turn out to be a disagreement. A word that a reviewer gave before or since stays.

    Raises:
        ItemGone: the turn was erased.
    """
    turn = locked_turn(item.turn)
    gold = GoldItem.objects.filter(item=item).first()
    if gold is None:
        return
    gold.delete()
    if gold.adjudicates:
        _give_back_word(turn)
    audit(
        assistant=turn.assistant, actor=reviewer, action="gold.unmarked", target=str(turn.pk),
        details={"queue": item.queue_id},
    )  # fmt: skip


def _give_back_word(turn: Turn) -> None:
    """After the mark that took the verdict out of the labels' hands has gone."""
    other = GoldItem.objects.filter(item__turn=turn).order_by("pk").first()
    if other is not None:  # in another queue everybody is still measured by it
        GoldItem.objects.filter(pk=other.pk).update(adjudicates=True)
        return
    Resolution.objects.filter(turn=turn).update(how=Resolution.How.SINGLE, resolved_by=None)
    settle(turn)


def is_gold(item: QueueItem) -> bool:
    return GoldItem.objects.filter(item=item).exists()


def draws_gold(queue: Queue, annotator: User) -> bool:
    """Whether this person's next item is one with a known answer, if one is left for them.

    Drawn by hash of queue, person and how many labels they have given: a reload draws the same, and nobody can tell
    beforehand.
    """
    if not queue.gold_share:
        return False
    given = Annotation.objects.filter(queue=queue, annotator=annotator).count()
    drawn = hashlib.sha256(f"gold:{queue.pk}:{annotator.pk}:{given}".encode()).digest()[:8]
    return int.from_bytes(drawn) / 2**64 < queue.gold_share


def gold_left_for(queue: Queue, annotator: User) -> QuerySet[QueueItem]:
    """Items with known answers that this person has neither labelled nor skipped nor marked."""
    rows = QueueItem.objects.filter(queue=queue, gold__isnull=False).untouched_by(annotator)
    return rows.exclude(gold__marked_by=annotator)

"""What happens to labels: adding work, submitting (`annotations.submitting`), skipping, taking back, resolving,
adjudicating.

What is written about one turn is serialised by a lock on its row, so counts, the current label and the resolution
always fit together. Everything that people type is scrubbed before it is stored; when that fails, nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotations import scrubbing
from annotations.errors import AlreadySettled, ItemGone, NothingToUndo, SettledMeanwhile
from annotations.filling import add_turns
from annotations.gold import is_gold
from annotations.leases import item_ahead, lease_to, next_item, release_lease, renew_lease
from annotations.models import MAX_SKIP_REASON, Annotation, Assignment, GoldItem, Queue, QueueItem, Resolution, Verdict
from annotations.resolving import Decision, relevant_ranks, response_to_learn
from annotations.saved_drafts import drop_drafts
from annotations.settling import locked_turn, ranks_of, settle, standing_of, store_decision, votes_on, wording_of
from annotations.submitting import submit
from annotations.validation import SKIP_REASONS, clean_label, clean_text
from assistants.services import audit
from capture.models import Turn

__all__ = [
    "Undone",
    "add_turns",
    "adjudicate",
    "item_ahead",
    "next_item",
    "release_lease",
    "renew_lease",
    "resolve",
    "skip",
    "stamp_of",
    "submit",
    "undo_last",
]


@dataclass(frozen=True)
class Undone:
    """What was taken back: the item is leased to its author again. ``annotation`` is None for a skip."""

    item: QueueItem
    annotation: Annotation | None


@transaction.atomic
def skip(*, item_id: int, annotator: User, reason: str) -> None:
    """Gives an item back for good: it does not return to this person. The reason is kept for the queue's admin.

    Raises:
        ValidationError: no reason, or one that is too long.
        ItemGone: the item is not there any more.
    """
    reason = clean_text(reason)
    if not reason:
        raise ValidationError({"reason": ["Say in a few words why you skip it."]})
    if len(reason) > MAX_SKIP_REASON:
        raise ValidationError({"reason": [f"At most {MAX_SKIP_REASON} characters, please."]})
    item = QueueItem.objects.select_related("turn__assistant", "queue").filter(pk=item_id).first()
    if item is None:
        raise ItemGone
    if reason not in SKIP_REASONS:
        (reason,) = scrubbing.scrub(turn=item.turn, texts=(reason,))
    now = timezone.now()
    Assignment.objects.bulk_create(
        [
            Assignment(
                item=item, annotator=annotator, expires_at=now, skipped_at=now, skipped_because=reason[:MAX_SKIP_REASON]
            )
        ],
        update_conflicts=True,
        unique_fields=["item", "annotator"],
        update_fields=["expires_at", "skipped_at", "skipped_because"],
    )
    drop_drafts(turn_id=item.turn_id, annotator=annotator)
    audit(assistant=item.turn.assistant, actor=annotator, action="label.skipped", target=str(item.turn_id))


@transaction.atomic
def undo_last(*, queue: Queue, annotator: User) -> Undone:
    """Takes back this person's last label or skip in a queue and leases the item to them again.

    A label taken back stays stored but does not count; the label that it had replaced counts again.

    Raises:
        AlreadyDone: what was skipped is with others now.
        NothingToUndo: nothing of theirs is left in this queue.
        AlreadySettled: a reviewer has settled the turn since.
    """
    label = Annotation.objects.current().filter(queue=queue, annotator=annotator).order_by("-created_at", "-pk").first()
    open_to_them = Q(item__done=False) | Q(item__gold__isnull=False)
    skipped = Assignment.objects.skipped().filter(open_to_them, item__queue=queue, annotator=annotator)
    last_skip = skipped.select_related("item").order_by("-skipped_at").first()
    if last_skip and last_skip.skipped_at and (label is None or last_skip.skipped_at > label.created_at):
        renew_lease(item_id=last_skip.item_id, annotator=annotator)
        return Undone(item=last_skip.item, annotation=None)
    if label is None:
        raise NothingToUndo
    return _take_back(label, queue, annotator)


@transaction.atomic
def resolve(*, turn: Turn) -> Resolution | None:
    """Works out the resolution of a turn from its current labels; None while they are too few or split."""
    return settle(locked_turn(turn))


@transaction.atomic
def adjudicate(
    *, turn: Turn, reviewer: User, verdict: str, reasons: Sequence[str], response: str, seen: str | None = None
) -> Resolution:
    """A reviewer's word: it counts whatever the labels say, and later labels do not change it.

    Args:
        response: the answer to learn for a bad turn; empty falls back to what the reasons imply, as for labels.
        seen: the stamp of the resolution that the reviewer was shown, empty for none: nobody is overruled unawares.
            None asks for no such care.

    Raises:
        SettledMeanwhile: not what was seen stands.
        ValidationError, ItemGone, CannotScrub: as in `submit`.
    """
    turn = locked_turn(turn)
    # Whoever writes a verdict holds the lock on its turn: what is read here stands until this one is stored.
    if seen is not None and seen != stamp_of(Resolution.objects.filter(turn=turn).first()):
        raise SettledMeanwhile
    given = "" if verdict == Verdict.GOOD else response
    label = clean_label(ranks=ranks_of(turn), logged=turn.response, verdict=verdict, reasons=reasons, correction=given)
    typed = scrubbing.typed(turn=turn, texts=(label.correction,))
    (correction,) = typed.texts
    standing, votes = standing_of(turn), votes_on(turn)
    learnt = response_to_learn(
        verdict=label.verdict,
        reasons=label.reasons,
        correction=correction,
        logged=turn.response,
        wording=wording_of(turn),
    )
    counted = tuple(vote.key for vote in votes if vote.verdict == label.verdict)
    decision = Decision(
        label.verdict, label.reasons, learnt, relevant_ranks(votes), Resolution.How.ADJUDICATED, counted
    )
    resolution = store_decision(turn, decision, reviewer, standing.resolution)
    typed.note(turn, f"resolutions.{resolution.pk}.response")
    QueueItem.objects.filter(turn=turn).update(done=True)
    # Their own word now, and no longer that of a mark: taking the mark away leaves it.
    GoldItem.objects.filter(item__turn=turn).update(adjudicates=False)
    audit(
        assistant=turn.assistant,
        actor=reviewer,
        action="label.adjudicated",
        target=str(turn.pk),
        details={"verdict": label.verdict, "reasons": list(label.reasons)},
    )
    return resolution


def stamp_of(resolution: Resolution | None) -> str:
    """What the page of a disagreement posts back as seen."""
    return resolution.stamp if resolution else ""


def _take_back(label: Annotation, queue: Queue, annotator: User) -> Undone:
    turn = locked_turn(label.turn)
    item = QueueItem.objects.filter(queue=queue, turn=turn).first()
    if item is None:
        raise ItemGone
    if not is_gold(item) and Resolution.objects.filter(turn=turn, how=Resolution.How.ADJUDICATED).exists():
        raise AlreadySettled
    Annotation.objects.filter(pk=label.pk).update(withdrawn_at=timezone.now())
    Annotation.objects.filter(replaced_by=label.pk).update(replaced_by=None)
    settle(turn)
    lease_to(item=item, annotator=annotator)
    audit(
        assistant=turn.assistant,
        actor=annotator,
        action="label.taken_back",
        target=str(turn.pk),
        details={"annotation": label.pk},
    )
    item.refresh_from_db()
    return Undone(item=item, annotation=label)

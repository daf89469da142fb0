"""What happens to labels: adding work, submitting, skipping, taking back, resolving, adjudicating.

Submissions about one turn are serialised by a lock on its row, so counts, the current label and the resolution always
fit together. Everything that people type is scrubbed before it is stored; when that fails, nothing is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotations import scrubbing
from annotations.errors import AlreadyDone, AlreadySettled, ItemGone, NothingToUndo
from annotations.filling import add_turns
from annotations.gold import is_gold
from annotations.leases import has_room, holds_lease, item_ahead, lease_to, next_item, release_lease, renew_lease
from annotations.missing import chunks_to_add, store_missed
from annotations.models import (
    MAX_SKIP_REASON,
    Annotation,
    Assignment,
    ContextMark,
    Queue,
    QueueItem,
    Resolution,
    Verdict,
)
from annotations.resolving import Decision, relevant_ranks, response_to_learn
from annotations.saved_drafts import drop_drafts
from annotations.settling import locked_turn, settle, store_decision, votes_on, wording_of
from annotations.suggesting import suggested_to
from annotations.validation import SKIP_REASONS, CleanLabel, clean_label, clean_seconds, clean_text
from assistants.services import audit
from capture.models import Retrieval, Turn

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
    "submit",
    "undo_last",
]


@dataclass(frozen=True)
class Undone:
    """What was taken back: the item is leased to its author again. ``annotation`` is None for a skip."""

    item: QueueItem
    annotation: Annotation | None


@transaction.atomic
def submit(
    *,
    turn: Turn,
    annotator: User,
    verdict: str,
    reasons: Sequence[str] = (),
    correction: str = "",
    marks: Mapping[int, str] | None = None,
    note: str = "",
    queue: Queue | None = None,
    seconds: float | None = None,
    missed: Sequence[int] = (),
) -> Annotation:
    """Stores one person's label on one turn and resolves the turn when its labels suffice.

    The same content again returns the label that is there. Other content replaces it, and the old row stays. A lease
    that has ended does not matter as long as the item still needs a label. Without ``queue`` the label is taken
    whatever the queues of the turn need.

    Args:
        marks: relevance by passage rank.
        seconds: time on the page.
        missed: chunks of the knowledge base that retrieval should have found.

    Raises:
        ValidationError: by field, when the content is not right.
        ItemGone: the turn was erased, or is not in ``queue``.
        AlreadyDone: the lease had ended, and others have labelled the item or are at it.
        CannotScrub: what was typed could not be checked for personal data.
    """
    turn = locked_turn(turn)
    retrievals = dict(Retrieval.objects.filter(turn=turn).values_list("rank", "pk"))
    label = clean_label(
        ranks=retrievals,
        logged=turn.response,
        verdict=verdict,
        reasons=reasons,
        correction=correction,
        marks=marks,
        note=note,
    )
    chunks = chunks_to_add(turn, missed)
    typed = scrubbing.typed(turn=turn, texts=(label.correction, label.note))
    correction, note = typed.texts
    added = tuple(dict.fromkeys(chunk.digest for chunk in chunks))
    label = replace(label, correction=correction, note=note, missed=added)
    earlier = Annotation.objects.current().filter(turn=turn, annotator=annotator).first()
    if earlier is not None and _content(earlier) == label:
        return earlier
    if queue is not None:
        _check_room(turn, queue, annotator, earlier)
    annotation = _write(
        turn=turn, annotator=annotator, label=label, queue=queue, seconds=clean_seconds(seconds), earlier=earlier
    )
    ContextMark.objects.bulk_create(
        ContextMark(annotation=annotation, retrieval_id=retrievals[rank], relevance=relevance)
        for rank, relevance in label.marks
    )
    store_missed(annotation, chunks)
    typed.note(turn, f"annotations.{annotation.pk}.correction", f"annotations.{annotation.pk}.note")
    Assignment.objects.filter(item__turn=turn, annotator=annotator).delete()
    drop_drafts(turn_id=turn.pk, annotator=annotator)
    settle(turn)
    audit(
        assistant=turn.assistant,
        actor=annotator,
        action="label.submitted",
        target=str(turn.pk),
        details={"annotation": annotation.pk, "verdict": label.verdict, "replaces": earlier.pk if earlier else None},
    )
    return annotation


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
def adjudicate(*, turn: Turn, reviewer: User, verdict: str, reasons: Sequence[str], response: str) -> Resolution:
    """A reviewer's word: it counts whatever the labels say, and later labels do not change it.

    ``response`` is the answer to learn for a bad turn; empty falls back to what the reasons imply, as for labels.

    Raises:
        ValidationError, ItemGone, CannotScrub: as in `submit`.
    """
    turn = locked_turn(turn)
    ranks = list(Retrieval.objects.filter(turn=turn).values_list("rank", flat=True))
    given = "" if verdict == Verdict.GOOD else response
    label = clean_label(ranks=ranks, logged=turn.response, verdict=verdict, reasons=reasons, correction=given)
    typed = scrubbing.typed(turn=turn, texts=(label.correction,))
    (correction,) = typed.texts
    votes = votes_on(turn)
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
    resolution = store_decision(turn, decision, reviewer)
    typed.note(turn, f"resolutions.{resolution.pk}.response")
    QueueItem.objects.filter(turn=turn).update(done=True)
    audit(
        assistant=turn.assistant,
        actor=reviewer,
        action="label.adjudicated",
        target=str(turn.pk),
        details={"verdict": label.verdict, "reasons": list(label.reasons)},
    )
    return resolution


def _check_room(turn: Turn, queue: Queue, annotator: User, earlier: Annotation | None) -> None:
    # Locked as giving out does: else an item could be given to somebody else between this look and the label.
    item = QueueItem.objects.select_for_update().filter(queue=queue, turn=turn).first()
    if item is None:
        raise ItemGone
    if earlier is None and not holds_lease(item, annotator) and not has_room(item, annotator) and not is_gold(item):
        raise AlreadyDone


def _content(annotation: Annotation) -> CleanLabel:
    marks = annotation.marks.order_by("retrieval__rank").values_list("retrieval__rank", "relevance")
    return CleanLabel(
        Verdict(annotation.verdict),
        tuple(annotation.reasons),
        annotation.correction,
        tuple(marks),
        annotation.note,
        tuple(annotation.missed.order_by("pk").values_list("digest", flat=True)),
    )


def _write(
    *,
    turn: Turn,
    annotator: User,
    label: CleanLabel,
    queue: Queue | None,
    seconds: float | None,
    earlier: Annotation | None,
) -> Annotation:
    if earlier is not None:
        # Only one label of a person may be current, so the old one steps aside (pointing to itself) before the new
        # one exists to point to.
        Annotation.objects.filter(pk=earlier.pk).update(replaced_by=earlier.pk)
    annotation = Annotation.objects.create(
        turn=turn,
        annotator=annotator,
        queue=queue,
        verdict=label.verdict,
        reasons=list(label.reasons),
        correction=label.correction,
        note=label.note,
        seconds=seconds,
        suggested=suggested_to(queue, turn.pk, annotator),
    )
    if earlier is not None:
        Annotation.objects.filter(pk=earlier.pk).update(replaced_by=annotation)
    return annotation


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

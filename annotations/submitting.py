"""Storing one person's label on one turn.

Submissions about one turn are serialised by a lock on its row. Round trips are what a submission costs: so what is read
under the lock is read once and handed on, and nothing is looked at that the lock keeps as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from django.contrib.auth.models import User
from django.db import transaction

from annotations import scrubbing
from annotations.errors import AlreadyDone, ItemGone
from annotations.gold import is_gold
from annotations.leases import has_room, let_go
from annotations.missing import chunks_to_add, store_missed
from annotations.models import Annotation, ContextMark, Queue, Verdict
from annotations.settling import Standing, labels_on, locked_turn, ranks_of, settle_with, standing_of, vote_of, votes_of
from annotations.suggesting import suggested_to
from annotations.validation import CleanLabel, clean_label, clean_seconds
from assistants.services import audit
from capture.models import Turn


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
        turn: only its key is read; the row is read under the lock.
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
    retrievals = ranks_of(turn)
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
    labels = labels_on(turn)
    earlier = next((one for one in labels if one.annotator_id == annotator.pk), None)
    if earlier is not None and _content(earlier) == label:
        return earlier
    standing = standing_of(turn)
    leased = let_go(turn_id=turn.pk, annotator=annotator)
    if queue is not None:
        _check_room(standing, queue, annotator, leased=leased, earlier=earlier)
    annotation = _write(
        turn=turn, annotator=annotator, label=label, queue=queue, seconds=clean_seconds(seconds), earlier=earlier
    )
    ContextMark.objects.bulk_create(
        ContextMark(annotation=annotation, retrieval_id=retrievals[rank], relevance=relevance)
        for rank, relevance in label.marks
    )
    store_missed(annotation, chunks)
    typed.note(turn, f"annotations.{annotation.pk}.correction", f"annotations.{annotation.pk}.note")
    others = votes_of(turn, [one for one in labels if one is not earlier])
    settle_with(turn, standing, [*others, vote_of(annotation, label.marks)])
    audit(
        assistant=turn.assistant,
        actor=annotator,
        action="label.submitted",
        target=str(turn.pk),
        details={"annotation": annotation.pk, "verdict": label.verdict, "replaces": earlier.pk if earlier else None},
    )
    return annotation


def _check_room(
    standing: Standing, queue: Queue, annotator: User, *, leased: set[int], earlier: Annotation | None
) -> None:
    """Under the lock that giving out takes: else an item could go to somebody else between this look and the label."""
    item = next((one for one in standing.items if one.queue_id == queue.pk), None)
    if item is None:
        raise ItemGone
    if earlier is None and item.pk not in leased and not has_room(item, annotator) and not is_gold(item):
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

"""The rules of `annotations.resolving` applied to the rows of one turn. Callers hold the lock on the turn."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.models import User
from django.db import models

from annotations.errors import ItemGone
from annotations.machine.votes import machine_votes
from annotations.models import Annotation, ContextMark, QueueItem, Resolution
from annotations.resolving import Decision, Vote, Wording, decide
from capture.models import Turn


def locked_turn(turn: Turn) -> Turn:
    """The turn with its assistant, locked against other submissions (not against rows that refer to it)."""
    locked = (
        Turn.objects.select_for_update(of=("self",), no_key=True)
        .select_related("assistant")
        .defer("embedding")
        .filter(pk=turn.pk)
        .first()
    )
    if locked is None:
        raise ItemGone
    return locked


def votes_on(turn: Turn) -> list[Vote]:
    votes = []
    labels = Annotation.objects.current().filter(turn=turn).order_by("created_at", "pk")
    for label in labels.prefetch_related("marks__retrieval"):
        ranks: dict[str, set[int]] = {relevance: set() for relevance in ContextMark.Relevance.values}
        for mark in label.marks.all():
            ranks[mark.relevance].add(mark.retrieval.rank)
        votes.append(
            Vote(
                key=label.pk,
                verdict=label.verdict,
                reasons=tuple(label.reasons),
                correction=label.correction,
                relevant=frozenset(ranks[ContextMark.Relevance.RELEVANT]),
                not_relevant=frozenset(ranks[ContextMark.Relevance.NOT_RELEVANT]),
            )
        )
    return votes


def wording_of(turn: Turn) -> Wording:
    return Wording(decline=turn.assistant.decline_sentence, handoff=turn.assistant.handoff_sentence)


def settle(turn: Turn) -> Resolution | None:
    """Brings the counts of the turn's items and its resolution up to date with its current labels."""
    settled = Resolution.objects.filter(turn=turn, how=Resolution.How.ADJUDICATED).first()
    votes = [*votes_on(turn), *machine_votes(turn)]
    enough = models.Value(True) if settled is not None else models.Q(labels_needed__lte=len(votes))
    done = models.ExpressionWrapper(enough, output_field=models.BooleanField())
    QueueItem.objects.filter(turn=turn).update(labels_done=len(votes), done=done)
    if settled is not None:
        return settled
    needs = QueueItem.objects.filter(turn=turn, queue__paused=False).aggregate(most=models.Max("labels_needed"))
    decision = None
    if len(votes) >= (needs["most"] or 1):
        decision = decide(votes, logged=turn.response, wording=wording_of(turn))
    if decision is None:
        Resolution.objects.filter(turn=turn).delete()
        return None
    return store_decision(turn, decision, None)


def store_decision(turn: Turn, decision: Decision, reviewer: User | None) -> Resolution:
    resolution, created = Resolution.objects.update_or_create(
        turn=turn,
        defaults={
            "verdict": decision.verdict,
            "reasons": list(decision.reasons),
            "response": decision.response,
            "relevant_ranks": list(decision.relevant_ranks),
            "how": decision.how,
            "resolved_by": reviewer,
        },
    )
    resolution.annotations.set(key for key in decision.counted if isinstance(key, int))
    machines = [key for key in decision.counted if isinstance(key, UUID)]
    if machines or not created:
        resolution.machine_labels.set(machines)  # type: ignore[arg-type]  # the stubs know whole numbers only
    return resolution

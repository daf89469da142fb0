"""The rules of `annotations.resolving` applied to the rows of one turn. Callers hold the lock on the turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models.functions import JSONObject

from annotations.errors import ItemGone
from annotations.machine.votes import machine_votes
from annotations.models import Annotation, ContextMark, QueueItem, Resolution
from annotations.resolving import Decision, Vote, Wording, decide
from capture.models import Retrieval, Turn, TurnQuerySet


def locked_turn(turn: Turn | UUID) -> Turn:
    """The turn with its assistant, locked against other submissions (not against rows that refer to it).

    Raises:
        ItemGone: it was erased.
    """
    return locked_first(Turn.objects.filter(pk=turn.pk if isinstance(turn, Turn) else turn))


def locked_first(turns: TurnQuerySet) -> Turn:
    """As `locked_turn`, of a query that finds one turn; with ``ranks``: [[rank, key of the retrieval], …]. They never
    change, so that they may come with the statement that waits for the lock; what others may write must not."""
    retrievals = Retrieval.objects.filter(turn=models.OuterRef("pk")).order_by("rank")
    ranks = ArraySubquery(retrievals.values(pair=JSONObject(rank="rank", key="pk")))
    rows = turns.select_for_update(of=("self",), no_key=True).select_related("assistant")
    locked = rows.defer("embedding", "words").annotate(ranks=ranks).order_by().first()
    if locked is None:
        raise ItemGone
    return locked


def ranks_of(turn: Turn) -> dict[int, int]:
    """{rank: key of the retrieval} of a turn from `locked_turn`."""
    pairs: list[dict[str, int]] = turn.ranks  # type: ignore[attr-defined]
    return {pair["rank"]: pair["key"] for pair in pairs}


def labels_on(turn: Turn) -> list[Annotation]:
    """What everybody says of the turn now, in order of time, with marks."""
    labels = Annotation.objects.current().filter(turn=turn).order_by("created_at", "pk")
    return list(labels.prefetch_related("marks"))


def vote_of(label: Annotation, marks: Iterable[tuple[int, str]]) -> Vote:
    """``marks``: (rank, relevance)."""
    ranks: dict[str, set[int]] = {relevance: set() for relevance in ContextMark.Relevance.values}
    for rank, relevance in marks:
        ranks[relevance].add(rank)
    return Vote(
        key=label.pk,
        verdict=label.verdict,
        reasons=tuple(label.reasons),
        correction=label.correction,
        relevant=frozenset(ranks[ContextMark.Relevance.RELEVANT]),
        not_relevant=frozenset(ranks[ContextMark.Relevance.NOT_RELEVANT]),
    )


def votes_of(turn: Turn, labels: Iterable[Annotation]) -> list[Vote]:
    """Of labels from `labels_on`; no query runs here."""
    rank_of = {key: rank for rank, key in ranks_of(turn).items()}
    marks = {label.pk: [(rank_of[mark.retrieval_id], mark.relevance) for mark in label.marks.all()] for label in labels}
    return [vote_of(label, marks[label.pk]) for label in labels]


def votes_on(turn: Turn) -> list[Vote]:
    """Of people; ``turn`` from `locked_turn`."""
    return votes_of(turn, labels_on(turn))


@dataclass(frozen=True)
class Standing:
    """The items of a turn, locked, and its resolution: what a label changes. Nobody else writes them meanwhile."""

    items: Sequence[QueueItem]
    resolution: Resolution | None

    @property
    def needs(self) -> int:
        """Labels that settle the turn: queues that are paused do not hold it up."""
        return max((item.labels_needed for item in self.items if not item.queue.paused), default=1)

    @property
    def machines_count(self) -> bool:
        return bool(self.items) and all(item.queue.machines_count for item in self.items)

    @property
    def settled(self) -> bool:
        return self.resolution is not None and self.resolution.how == Resolution.How.ADJUDICATED


def standing_of(turn: Turn) -> Standing:
    """Locks the turn's items, in one order, as giving out locks them: none is given out while a label is stored. The
    caller holds the lock on the turn, so the resolution cannot change behind the joined row."""
    rows = QueueItem.objects.select_for_update(of=("self",)).select_related("queue", "turn__resolution")
    items = list(rows.filter(turn=turn).only(*_OF_ITEM, *_OF_QUEUE, *_OF_RESOLUTION).order_by("pk"))
    if items:
        return Standing(items, getattr(items[0].turn, "resolution", None))
    return Standing((), Resolution.objects.filter(turn=turn).first())


_OF_ITEM = ("queue_id", "turn_id", "labels_needed", "labels_done", "done")
_OF_QUEUE = ("queue__paused", "queue__machines_count")
_OF_RESOLUTION = ("turn__id", *(f"turn__resolution__{field.name}" for field in Resolution._meta.concrete_fields))


def wording_of(turn: Turn) -> Wording:
    return Wording(decline=turn.assistant.decline_sentence, handoff=turn.assistant.handoff_sentence)


def settle(turn: Turn) -> Resolution | None:
    """Brings the counts of the turn's items and its resolution up to date with its current labels."""
    return settle_with(turn, standing_of(turn), votes_on(turn))


def settle_with(turn: Turn, standing: Standing, people: Sequence[Vote]) -> Resolution | None:
    """As `settle`, with what the caller has read already.

    Args:
        people: the votes of all current labels of people, in order of time.
    """
    votes = [*people, *(machine_votes(turn) if standing.machines_count else ())]
    _count(turn, standing, len(votes))
    if standing.settled:
        return standing.resolution
    decision = None
    if len(votes) >= standing.needs:
        decision = decide(votes, logged=turn.response, wording=wording_of(turn))
    if decision is None:
        if standing.resolution is not None:
            standing.resolution.delete()
        return None
    return store_decision(turn, decision, None, standing.resolution)


def _count(turn: Turn, standing: Standing, labels: int) -> None:
    done = {item.pk: standing.settled or item.labels_needed <= labels for item in standing.items}
    if all(item.labels_done == labels and item.done == done[item.pk] for item in standing.items):
        return
    enough = models.Value(True) if standing.settled else models.Q(labels_needed__lte=labels)
    wrapped = models.ExpressionWrapper(enough, output_field=models.BooleanField())
    QueueItem.objects.filter(pk__in=list(done)).update(labels_done=labels, done=wrapped)


def store_decision(turn: Turn, decision: Decision, reviewer: User | None, resolution: Resolution | None) -> Resolution:
    """``resolution``: the turn's own as it is stored, if it has one. The lock on the turn keeps others from writing it,
    so nothing is looked at twice."""
    values: dict[str, Any] = {
        "verdict": decision.verdict,
        "reasons": list(decision.reasons),
        "response": decision.response,
        "relevant_ranks": list(decision.relevant_ranks),
        "how": decision.how,
        "resolved_by": reviewer,
    }
    people = [key for key in decision.counted if isinstance(key, int)]
    machines = [key for key in decision.counted if isinstance(key, UUID)]
    if resolution is None:
        made = Resolution.objects.create(turn=turn, **values)
        counted = Resolution.annotations.through
        counted.objects.bulk_create(counted(resolution_id=made.pk, annotation_id=key) for key in people)
        if machines:
            made.machine_labels.set(machines)  # type: ignore[arg-type]  # the stubs know whole numbers only
        return made
    for name, value in values.items():
        setattr(resolution, name, value)
    resolution.save(update_fields=[*values, "resolved_at"])
    resolution.annotations.set(people)
    resolution.machine_labels.set(machines)  # type: ignore[arg-type]  # as above
    return resolution

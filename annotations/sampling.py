"""Which of the turns that fit are taken, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Case, Exists, F, Max, OuterRef, Q, QuerySet, Value, When, Window
from django.db.models.functions import Random, RowNumber

from annotations.models import Queue, QueueItem
from annotations.novelty import unit, vectors_of
from capture.models import Feedback, Retrieval, Turn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEWEST, RANDOM, DOWN, UNCERTAIN, DIVERSE, STRATIFIED, NEAREST = (
    "newest", "random", "down", "uncertain", "diverse", "stratified", "nearest",
)  # fmt: skip
ORDERS = (
    (NEWEST, "The newest"),
    (RANDOM, "A random sample"),
    (DOWN, "Thumbs down first"),
    (UNCERTAIN, "The uncertain ones first"),
    (DIVERSE, "As different questions as possible"),
    (STRATIFIED, "As many of each adapter"),
    (NEAREST, "The most similar first"),
)
LOOKED_AT = 2_000
"""Turns that are looked at one by one: what needs vectors, passages or words of each costs seconds beyond that."""
_FEW = 5
"""Turns that declined, and that answered, from which on the boundary between them is measured."""


def in_database(turns: QuerySet[Turn], order: str) -> QuerySet[Turn]:
    """The orders that need no look at single turns."""
    if order == RANDOM:
        return turns.order_by("?")
    if order == DOWN:
        bad = Feedback.objects.filter(turn=OuterRef("pk")).filter(
            Q(kind=Feedback.Kind.THUMB, value__lt=0) | Q(kind=Feedback.Kind.RATING, value__lte=2)
        )
        first = Case(When(Exists(bad), then=Value(0)), default=Value(1))
        return turns.annotate(first=first).order_by("first", "-asked_at", "-id")
    if order == STRATIFIED:
        # The n-th of each adapter (of each model, where no adapter answered) before the n+1-th of any.
        place = Window(RowNumber(), partition_by=[F("adapter"), F("model")], order_by=Random())
        return turns.annotate(place=place).order_by("place", "adapter", "model")
    return turns.order_by("-asked_at", "-id")


def by_uncertainty(turns: Sequence[UUID], threshold: float) -> list[UUID]:
    """Feedback both ways first; then the nearer the best passage's similarity is to where this assistant changes from
    answering to declining. Turns of which no similarity is known come last, in the order given.

    Args:
        threshold: the assistant's own, taken where too few declined or answered to measure one; 0: none.
    """
    best = _best_similarity(turns)
    declined = dict(Turn.objects.filter(pk__in=turns).order_by().values_list("pk", "declined"))
    known = [(best[key], declined[key]) for key in turns if key in best]
    edge = boundary(known)
    edge = threshold if edge is None else edge
    torn = _torn(turns)

    def far(key: UUID) -> tuple[int, float]:
        if key in torn:
            return (0, 0.0)
        return (1, abs(best[key] - edge)) if key in best else (2, 0.0)

    return sorted(turns, key=far)


def boundary(known: Sequence[tuple[float, bool]]) -> float | None:
    """The similarity that best separates turns that declined (below) from turns that answered (above).

    Args:
        known: (similarity, declined).

    Returns:
        None where fewer than five declined, or fewer than five answered.
    """
    declined = sum(1 for _, says_no in known if says_no)
    if declined < _FEW or len(known) - declined < _FEW:
        return None
    ordered = sorted(known)
    wrong = declined  # with the cut below everything, all that declined is on the wrong side
    least, edge = wrong, ordered[0][0]
    for place, (similarity, says_no) in enumerate(ordered):
        wrong += -1 if says_no else 1
        following = ordered[place + 1][0] if place + 1 < len(ordered) else similarity
        if wrong < least and following != similarity:
            least, edge = wrong, (similarity + following) / 2
    return edge


def by_difference(turns: Sequence[UUID], queue: Queue, limit: int) -> list[UUID]:
    """``limit`` turns whose questions differ most from each other and from those in the queue already.

    k-means++ seeding: each next one is drawn with odds that grow with the square of its distance to the nearest one
    taken. (Always taking the farthest would fill the queue with typing errors.) Seeded by queue and size, so that the
    same press picks the same. Turns without a vector are left out.
    """
    import numpy as np

    vectors = vectors_of(turns)
    if not vectors:
        return []
    keys, rows = list(vectors), unit(np.stack(list(vectors.values())))
    inside = QueueItem.objects.filter(queue=queue).order_by("-pk").values_list("turn", flat=True)
    taken = vectors_of(list(inside[:LOOKED_AT]))
    draw = np.random.default_rng([queue.pk, len(taken), len(keys)])
    distance = np.full(len(keys), 2.0, dtype=np.float32)
    if taken:
        distance = 1.0 - (rows @ unit(np.stack(list(taken.values()))).T).max(axis=1)
    return [keys[place] for place in _spread(rows, distance, min(limit, len(keys)), draw)]


def _spread(
    rows: NDArray[np.float32], distance: NDArray[np.float32], wanted: int, draw: np.random.Generator
) -> list[int]:
    """Places of ``wanted`` rows. ``distance``: of each row to the nearest one that is taken before."""
    import numpy as np

    chosen: list[int] = []
    left = np.ones(len(rows), dtype=bool)
    for _ in range(wanted):
        odds = np.where(left, np.clip(distance, 0.0, None) ** 2, 0.0).astype(np.float64)
        if odds.sum() <= 0:  # only repeats are left
            odds = left.astype(np.float64)
        place = int(draw.choice(len(rows), p=odds / odds.sum()))
        chosen.append(place)
        left[place] = False
        distance = np.minimum(distance, 1.0 - rows @ rows[place])
    return chosen


def _best_similarity(turns: Sequence[UUID]) -> Mapping[UUID, float]:
    """{turn: similarity of its best sentence}; of turns that came without, the retriever's best score, but only where
    no turn has the former: the two are not on one scale."""
    evidence: dict[UUID, float] = {}
    rows = Retrieval.objects.filter(turn__in=turns).exclude(evidence=[]).order_by()
    for turn, offered in rows.values_list("turn", "evidence"):
        for row in offered:
            if len(row) == 3:
                evidence[turn] = max(float(row[2]), evidence.get(turn, -1.0))
    if evidence:
        return evidence
    scored = Retrieval.objects.filter(turn__in=turns, score__isnull=False).order_by()
    return {turn: float(score) for turn, score in scored.values_list("turn").annotate(Max("score"))}


def _torn(turns: Sequence[UUID]) -> set[UUID]:
    """Turns that somebody liked and somebody did not."""
    rows = Turn.objects.filter(pk__in=turns).order_by()
    return set(rows.with_feedback("up").with_feedback("down").values_list("pk", flat=True))

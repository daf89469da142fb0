"""Turns by meaning: those whose question is nearest to a text, or to another turn's question.

Two ways to the same answer. Where the filters leave few turns, their distances are computed one by one: exact, and a
few milliseconds. Where they leave many, the HNSW index is walked until enough turns that pass the filters were met
(iterative scan; without it a small assistant beside large ones would get next to nothing). The planner's own estimate
decides, since counting a million rows would cost more than either way; and where the walk gives up before it has
enough, the exact way follows, so that a rare filter never hides what is there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.db.models import F, FloatField, Value

from assistants.errors import ApiError
from capture.models import TurnQuerySet
from capture.turn_filters import bad, plain
from capture.vault import stored_id
from knowledge.embedding import embed
from knowledge.query import MAX_CHARS, history_query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXACT_BELOW = 5_000
"""Turns that pass the filters, as the planner estimates them, up to which every distance is computed."""
MAX_NEAREST = 200
EF_SEARCH = 200
"""At least as many as are asked for at once, so that most searches need one walk of the index."""
EMBED_SECONDS = 10.0
TURN_PREFIX = "turn:"


@dataclass(frozen=True)
class Likeness:
    """What is searched for. ``turn``: the turn that it was, which is not among its own neighbours."""

    vector: NDArray[np.float32]
    turn: uuid.UUID | None = None


@dataclass(frozen=True)
class Near:
    """``similarity``: cosine, from -1 to 1; 1 is the same."""

    turn: uuid.UUID
    similarity: float


def likeness_of(like: str, *, among: TurnQuerySet, glossary: Mapping[str, str] | None = None) -> Likeness:
    """``like``: a text, our id of a turn, or ``turn:`` and the client's id of one.

    Args:
        among: the turns that may be named.
        glossary: of the assistant, so that a text is read as its questions are.

    Raises:
        assistants.errors.ApiError: 422, no text, or no such turn; 503, the engine does not answer.
    """
    text = plain("like", like, MAX_CHARS).strip()
    if not text:
        raise bad("like", "must not be blank")
    return _named_turn(text, among) or _of_text(text, glossary)


def _of_text(text: str, glossary: Mapping[str, str] | None) -> Likeness:
    from generation.engines import EngineError

    try:
        return Likeness(embed([history_query(text, (), glossary)], seconds=EMBED_SECONDS)[0])
    except EngineError as error:
        raise ApiError(
            503,
            detail="Searching by meaning (like=) needs the engine, which does not answer. Words (q=) work without it.",
            headers={"Retry-After": "5"},
        ) from error


def nearest(turns: TurnQuerySet, likeness: Likeness, *, limit: int, exact: bool | None = None) -> list[Near]:
    """At most ``limit`` of ``turns``, nearest first; equal distances in the order of their ids.

    ``exact`` forces a way (tests compare both); by default the planner's estimate decides.
    """
    turns = turns.filter(embedding__isnull=False).order_by()
    if likeness.turn is not None:
        turns = turns.exclude(pk=likeness.turn)
    if exact is None:
        exact = _estimate(turns) <= EXACT_BELOW
    found = _by_distance(turns, likeness, limit) if exact else _by_index(turns, likeness, limit)
    if not exact and len(found) < limit:
        found = _by_distance(turns, likeness, limit)
    return [Near(pk, round(1.0 - distance, 4)) for distance, pk in sorted((d, pk) for pk, d in found)]


def _named_turn(text: str, own: TurnQuerySet) -> Likeness | None:
    if text.startswith(TURN_PREFIX):
        own = own.filter(client_id=stored_id(text.removeprefix(TURN_PREFIX)))
    else:
        try:
            own = own.filter(pk=uuid.UUID(text))
        except ValueError:
            return None
    row = own.order_by("pk").values_list("pk", "embedding").first()
    if row is None:
        raise bad("like", "there is no such turn")
    if row[1] is None:
        raise bad("like", "this turn has no vector")
    return Likeness(_array(row[1]), row[0])


def _array(stored: object) -> NDArray[np.float32]:
    import numpy as np

    return np.asarray(stored.to_list() if hasattr(stored, "to_list") else stored, dtype=np.float32)


def _estimate(turns: TurnQuerySet) -> int:
    """Rows that the planner expects: from statistics, in less than a millisecond."""
    plan = json.loads(turns.values("pk").explain(format="json"))
    return int(plan[0]["Plan"]["Plan Rows"])


def _by_index(turns: TurnQuerySet, likeness: Likeness, limit: int) -> list[tuple[uuid.UUID, float]]:
    from pgvector.django import CosineDistance

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true), "
                "set_config('hnsw.ef_search', %s, true)",
                [str(EF_SEARCH)],
            )
        rows = turns.annotate(distance=CosineDistance("embedding", likeness.vector)).order_by("distance")
        return list(rows.values_list("pk", "distance")[:limit])


def _by_distance(turns: TurnQuerySet, likeness: Likeness, limit: int) -> list[tuple[uuid.UUID, float]]:
    from pgvector.django import CosineDistance

    # The sum is no expression of the index, which keeps the planner from walking it for a handful of rows.
    distance = CosineDistance("embedding", likeness.vector) + Value(0.0, output_field=FloatField())
    rows = turns.annotate(distance=distance).order_by(F("distance"), "pk")
    return list(rows.values_list("pk", "distance")[:limit])

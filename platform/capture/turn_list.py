"""The list of turns in the admin: by meaning, and quick with millions of rows."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.db import connection
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from pgvector.django import CosineDistance

from assistants.access import assistants_of
from assistants.errors import ApiError
from capture.likeness import Likeness, likeness_of, nearest
from capture.models import Retrieval, Turn, TurnQuerySet

LIKE = "like"
FOUND_BY_MEANING = 100


class LikeFilter(SimpleListFilter):
    """Takes ``like`` out of the address, where the admin would refuse what it does not know; `MeaningList` uses it."""

    title = "meaning"
    parameter_name = LIKE

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Turn]) -> QuerySet[Turn]:
        return queryset


class MeaningList:
    """Mixed into the admin's list: with ``like`` it holds the nearest turns that pass its filters, nearest first."""

    root_queryset: QuerySet[Turn]

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Turn]:
        rows: QuerySet[Turn] = super().get_queryset(request, *args, **kwargs)  # type: ignore[misc]
        like = request.GET.get(LIKE, "").strip()
        if like and isinstance(rows, TurnQuerySet):
            rows = self._nearest(request, rows, like)
        return rows.select_related("resolution").prefetch_related(
            Prefetch("retrievals", queryset=Retrieval.objects.only("turn_id", "rank")), "feedback"
        )

    def _nearest(self, request: HttpRequest, rows: TurnQuerySet, like: str) -> QuerySet[Turn]:
        try:
            likeness = _likeness(request, like, self.root_queryset)
        except ApiError as error:
            messages.error(request, str(error.detail))
            return rows.none()
        keys = [near.turn for near in nearest(rows, likeness, limit=FOUND_BY_MEANING)]
        distance = CosineDistance("embedding", likeness.vector)
        return self.root_queryset.filter(pk__in=keys).annotate(distance=distance).order_by("distance", "pk")


def _likeness(request: HttpRequest, like: str, among: Any) -> Likeness:
    """Once per request: the admin asks for its rows several times."""
    cached: Likeness | None = getattr(request, "_likeness", None)
    if cached is None:
        own = list(assistants_of(request.user)[:2])
        # Words are read with the glossary where it is clear whose.
        cached = likeness_of(like, among=among.order_by(), glossary=own[0].glossary if len(own) == 1 else None)
        request._likeness = cached  # type: ignore[attr-defined]
    return cached


_LEAPS = """
WITH RECURSIVE names AS (
    (SELECT min(adapter) AS name FROM capture_turn WHERE assistant_id = %s)
    UNION ALL
    SELECT (SELECT min(adapter) FROM capture_turn WHERE assistant_id = %s AND adapter > names.name)
    FROM names WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT %s
"""


def adapters_of(assistants: list[int], *, most: int = 50) -> list[str]:
    """Names of adapters that answered, in order: by leaps through the index, since DISTINCT would read every turn."""
    found: set[str] = set()
    with connection.cursor() as cursor:
        for assistant in assistants:
            cursor.execute(_LEAPS, [assistant, assistant, most])
            found |= {row[0] for row in cursor.fetchall()}
    return sorted(found)[:most]
